//! The text screen of VGA: the log's lines, scrolling.

use crate::platform::mmio::Mmio;

const MOST_CELLS: usize = 132 * 60;
/// Light grey on black.
const ATTRIBUTE: u16 = 0x0700;
const BLANK: u16 = ATTRIBUTE | b' ' as u16;

/// A grid of characters, kept here as well, since reading video memory is slow.
pub struct Screen {
    memory: Mmio,
    columns: usize,
    rows: usize,
    pitch: usize,
    cells: [u16; MOST_CELLS],
    column: usize,
    row: usize,
}

impl Screen {
    /// A screen of `rows` rows, `pitch` bytes apart; cleared. `None` if it is too large or does not fit its memory.
    pub fn new(memory: Mmio, columns: u32, rows: u32, pitch: u32) -> Option<Self> {
        let (columns, rows, pitch) = (columns as usize, rows as usize, pitch as usize);
        let fits = columns > 0
            && rows > 0
            && columns.checked_mul(rows)? <= MOST_CELLS
            && columns * 2 <= pitch
            && pitch.is_multiple_of(2)
            && pitch.checked_mul(rows)? <= memory.length();
        let screen = Self {
            memory,
            columns,
            rows,
            pitch,
            cells: [BLANK; MOST_CELLS],
            column: 0,
            row: 0,
        };
        fits.then(|| {
            screen.draw(0, rows);
            screen
        })
    }

    /// Writes text; what is not ASCII shows as a question mark.
    pub fn write(&mut self, bytes: &[u8]) {
        let first = self.row;
        let mut scrolled = false;
        for &byte in bytes {
            if byte == b'\n' || self.column == self.columns {
                self.column = 0;
                self.row += 1;
            }
            if self.row == self.rows {
                self.cells.copy_within(self.columns..self.columns * self.rows, 0);
                self.row -= 1;
                self.cells[self.row * self.columns..][..self.columns].fill(BLANK);
                scrolled = true;
            }
            let shown = match byte {
                b'\n' => continue,
                b' '..=b'~' => byte,
                0x80..0xc0 => continue, // not the first byte of a character
                _ => b'?',
            };
            self.cells[self.row * self.columns + self.column] = ATTRIBUTE | u16::from(shown);
            self.column += 1;
        }
        self.draw(if scrolled { 0 } else { first }, self.row + 1);
    }

    fn draw(&self, from: usize, until: usize) {
        for row in from..until {
            for column in 0..self.columns {
                self.memory.write(
                    row * self.pitch + column * 2,
                    self.cells[row * self.columns + column],
                );
            }
        }
    }
}
