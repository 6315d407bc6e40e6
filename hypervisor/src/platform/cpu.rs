//! What belongs to one processor.
