//! Letters for a screen of pixels: ASCII, five pixels wide and eight high, drawn for this hypervisor.

/// Width of a glyph, without the gap to the next.
pub const WIDTH: usize = 5;
/// Height of a glyph, without the gap to the next row.
pub const HEIGHT: usize = 8;

/// Whether the pixel of a character's glyph is set; a character that has none is blank.
pub fn pixel(character: u8, column: usize, row: usize) -> bool {
    let glyph = character
        .checked_sub(b' ')
        .and_then(|index| GLYPHS.get(usize::from(index)));
    glyph.is_some_and(|glyph| {
        column < WIDTH && row < HEIGHT && glyph >> (row * WIDTH + WIDTH - 1 - column) & 1 != 0
    })
}

/// From the space to the tilde. Five bits a row, the leftmost pixel the highest; the top row is lowest.
#[rustfmt::skip]
const GLYPHS: [u64; 95] = [
    0x0000000000, 0x0100421084, 0x000000294a, 0x0295f57d4a, 0x013c5751e4,
    0x00e6820b38, 0x036554524c, 0x0000002084, 0x0088842082, 0x0208210888,
    0x0009575480, 0x00084f9080, 0x4118000000, 0x00000f8000, 0x0318000000,
    0x0020820820, 0x03a39ace2e, 0x0388421184, 0x07d041062e, 0x03a211105f,
    0x0085f928c2, 0x03a210fa1f, 0x03a31f4106, 0x021082083f, 0x03a317462e,
    0x030417c62e, 0x0018c03180, 0x0208c03180, 0x0088882082, 0x0001f07c00,
    0x0208208888, 0x010041062e, 0x03ab56862e, 0x0463f8c62e, 0x07a31f463e,
    0x03a308422e, 0x072518c65c, 0x07e10f421f, 0x04210f421f, 0x03e31bc22e,
    0x04631fc631, 0x038842108e, 0x0324210847, 0x04654c5251, 0x07e1084210,
    0x04631ad771, 0x04633ae631, 0x03a318c62e, 0x04210f463e, 0x036558c62e,
    0x04654f463e, 0x078217420f, 0x010842109f, 0x03a318c631, 0x011518c631,
    0x02ab5ac631, 0x0462a22a31, 0x0108454631, 0x07e082083f, 0x039084210e,
    0x0002222200, 0x038421084e, 0x0000004544, 0xf800000000, 0x0000000888,
    0x03e2f0b800, 0x07a31cda10, 0x03a3083800, 0x03e319b421, 0x03a1f8b800,
    0x02108e2126, 0x705f18bc00, 0x04631cda10, 0x0388423004, 0x6484211802,
    0x04a98a4a10, 0x038842108c, 0x04635ae800, 0x04631cd800, 0x03a318b800,
    0x843d18f800, 0x085f18bc00, 0x04210cd800, 0x0782e83c00, 0x0192847108,
    0x036718c400, 0x011518c400, 0x02ab58c400, 0x0454454400, 0x705f18c400,
    0x07d0417c00, 0x0088441082, 0x0108421084, 0x0208411088, 0x0000015500,
];

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::{string::String, vec::Vec};

    #[test]
    fn letters_look_like_letters() {
        let drawn: Vec<String> = (0..HEIGHT)
            .map(|row| {
                (0..WIDTH)
                    .map(|column| if pixel(b'A', column, row) { '#' } else { '.' })
                    .collect()
            })
            .collect();
        assert_eq!(
            drawn,
            [
                ".###.", "#...#", "#...#", "#...#", "#####", "#...#", "#...#", "....."
            ]
        );
        assert!((0..=255).all(|character| !pixel(character, WIDTH, 0) && !pixel(character, 0, HEIGHT)));
        assert!(
            (b'!'..=b'~').all(
                |character| (0..HEIGHT).any(|row| (0..WIDTH).any(|column| pixel(character, column, row)))
            )
        );
    }
}
