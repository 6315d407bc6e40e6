//! A screen: a grid of characters that scrolls, and the two ways to paint a character, VGA's text mode and a framebuffer of pixels.

use alloc::{vec, vec::Vec};

use super::font;
use crate::{
    boot::Framebuffer,
    platform::mmio::{self, Mmio},
};

const MOST_CELLS: usize = 200 * 110;

/// Paints one character.
pub trait Paint {
    /// Columns and rows.
    fn size(&self) -> (usize, usize);
    /// How many rows the grid moves up when it is full: more where painting is slow.
    fn jump(&self) -> usize;
    /// Paints a character at a column and a row that are inside.
    fn paint(&self, column: usize, row: usize, character: u8);
}

/// The grid. What each cell shows is kept here, since video memory is slow to read, and only cells that change are painted.
pub struct Screen<P> {
    painter: P,
    columns: usize,
    rows: usize,
    cells: Vec<u8>,
    column: usize,
    row: usize,
}

impl<P: Paint> Screen<P> {
    /// A screen, cleared. A larger one than can be kept is used in part.
    pub fn new(painter: P) -> Option<Self> {
        let (columns, rows) = painter.size();
        let columns = columns.min(MOST_CELLS);
        let rows = rows.min(MOST_CELLS / columns.max(1));
        if columns == 0 || rows == 0 {
            return None;
        }
        let mut screen = Self {
            painter,
            columns,
            rows,
            cells: vec![b' '; columns * rows],
            column: 0,
            row: 0,
        };
        screen.clear();
        Some(screen)
    }

    /// Clears it, whatever it shows.
    pub fn clear(&mut self) {
        self.cells.fill(b' ');
        (self.column, self.row) = (0, 0);
        for (column, row) in self.places() {
            self.painter.paint(column, row, b' ');
        }
    }

    /// How many lines it shows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Writes text; what is not ASCII shows as a question mark.
    pub fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            if byte == b'\n' || self.column == self.columns {
                self.column = 0;
                self.row += 1;
            }
            let shown = match byte {
                b'\n' | 0x80..0xc0 => continue, // a line's end, or not the first byte of a character
                b' '..=b'~' => byte,
                b'\t' => b' ',
                _ => b'?',
            };
            if self.row >= self.rows {
                self.scroll();
            }
            self.set(self.column, self.row, shown);
            self.column += 1;
        }
    }

    /// Columns and rows of all cells, row by row.
    fn places(&self) -> impl Iterator<Item = (usize, usize)> + use<P> {
        let columns = self.columns;
        (0..self.rows).flat_map(move |row| (0..columns).map(move |column| (column, row)))
    }

    fn scroll(&mut self) {
        let jump = self.painter.jump().clamp(1, self.rows);
        for (column, row) in self.places() {
            let below = row + jump;
            let character = if below < self.rows {
                self.cells[below * self.columns + column]
            } else {
                b' '
            };
            self.set(column, row, character);
        }
        self.row = self.rows - jump;
    }

    fn set(&mut self, column: usize, row: usize, character: u8) {
        let cell = &mut self.cells[row * self.columns + column];
        if *cell != character {
            *cell = character;
            self.painter.paint(column, row, character);
        }
    }
}

/// What the loader left, to paint on.
pub enum Painter {
    /// Characters with attributes.
    Text {
        /// Video memory.
        memory: Mmio,
        /// Characters in a row.
        columns: usize,
        /// Rows.
        rows: usize,
        /// Bytes from row to row.
        pitch: usize,
    },
    /// Pixels of 32 bits.
    Pixels {
        /// Video memory.
        memory: Mmio,
        /// Pixels in a row.
        width: usize,
        /// Rows.
        height: usize,
        /// Bytes from row to row.
        pitch: usize,
        /// Pixels of the screen for one of the font, each way.
        scale: usize,
        /// A pixel of a letter.
        colour: u32,
    },
}

/// Light grey on black.
const ATTRIBUTE: u16 = 0x0700;
const CELL_WIDTH: usize = font::WIDTH + 1;
const CELL_HEIGHT: usize = font::HEIGHT + 2;
/// More is not believed.
const LARGEST: usize = 256 << 20;

impl Painter {
    /// Maps the screen; `None` if it is of a kind that cannot be painted, or makes no sense.
    pub fn new(framebuffer: &Framebuffer) -> Option<Self> {
        let map = |address, pitch: usize, rows: usize| {
            let length = pitch.checked_mul(rows).filter(|&length| length <= LARGEST)?;
            mmio::map(address, length).ok()
        };
        match *framebuffer {
            Framebuffer::Text {
                address,
                columns,
                rows,
                pitch,
            } => {
                let (columns, rows, pitch) = (columns as usize, rows as usize, pitch as usize);
                let sound = columns * 2 <= pitch && pitch.is_multiple_of(2) && address.0.is_multiple_of(2);
                let memory = map(address, pitch, rows).filter(|_| sound)?;
                Some(Self::Text {
                    memory,
                    columns,
                    rows,
                    pitch,
                })
            }
            Framebuffer::Pixels {
                address,
                pitch,
                width,
                height,
                bits_per_pixel: 32,
                red,
                green,
                blue,
            } => {
                let (width, height, pitch) = (width as usize, height as usize, pitch as usize);
                let sound = width * 4 <= pitch && pitch.is_multiple_of(4) && address.0.is_multiple_of(4);
                let memory =
                    map(address, pitch, height).filter(|_| sound && red.max(green).max(blue) <= 24)?;
                let colour = 0xb0 << red | 0xb0 << green | 0xb0 << blue;
                Some(Self::Pixels {
                    memory,
                    width,
                    height,
                    pitch,
                    scale: (width / 640).max(1),
                    colour,
                })
            }
            Framebuffer::Pixels { .. } => None,
        }
    }
}

impl Paint for Painter {
    fn size(&self) -> (usize, usize) {
        match *self {
            Self::Text { columns, rows, .. } => (columns, rows),
            Self::Pixels {
                width, height, scale, ..
            } => (width / (CELL_WIDTH * scale), height / (CELL_HEIGHT * scale)),
        }
    }

    fn jump(&self) -> usize {
        match self {
            Self::Text { .. } => 1,
            Self::Pixels { .. } => self.size().1 / 2,
        }
    }

    fn paint(&self, column: usize, row: usize, character: u8) {
        match *self {
            Self::Text { memory, pitch, .. } => {
                memory.write(row * pitch + column * 2, ATTRIBUTE | u16::from(character))
            }
            Self::Pixels {
                memory,
                pitch,
                scale,
                colour,
                ..
            } => {
                let (left, top) = (column * CELL_WIDTH * scale, row * CELL_HEIGHT * scale);
                for (x, y) in
                    (0..CELL_HEIGHT * scale).flat_map(|y| (0..CELL_WIDTH * scale).map(move |x| (x, y)))
                {
                    let set = font::pixel(character, x / scale, y / scale);
                    memory.write((top + y) * pitch + (left + x) * 4, if set { colour } else { 0 });
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::{collections::BTreeMap, string::String};
    use core::cell::RefCell;

    struct Fake(usize, RefCell<BTreeMap<(usize, usize), u8>>);

    impl Paint for Fake {
        fn size(&self) -> (usize, usize) {
            (6, 4)
        }
        fn jump(&self) -> usize {
            self.0
        }
        fn paint(&self, column: usize, row: usize, character: u8) {
            assert!(column < 6 && row < 4);
            self.1.borrow_mut().insert((row, column), character);
        }
    }

    fn shown(jump: usize, text: &str) -> Vec<String> {
        let mut screen = Screen::new(Fake(jump, RefCell::default())).unwrap();
        screen.write(text.as_bytes());
        let cells = screen.painter.1.borrow();
        let row = |row| {
            (0..6)
                .map(|column| char::from(cells[&(row, column)]))
                .collect::<String>()
        };
        (0..4).map(|at| String::from(row(at).trim_end())).collect()
    }

    #[test]
    fn wraps_and_scrolls() {
        assert_eq!(shown(1, "one\ntwo\n"), ["one", "two", "", ""]);
        assert_eq!(shown(1, "1\n2\n3\n4\n5"), ["2", "3", "4", "5"]);
        assert_eq!(shown(2, "1\n2\n3\n4\n5"), ["3", "4", "5", ""]);
        assert_eq!(shown(1, "abcdefgh\né…\x1b"), ["abcdef", "gh", "???", ""]);
        assert_eq!(shown(1, "1\n2\n3\n4\n"), ["1", "2", "3", "4"]);
        assert_eq!(shown(1, "\n\n\n\n\n\nx"), ["", "", "", "x"]);
    }
}
