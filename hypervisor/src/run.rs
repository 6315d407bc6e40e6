//! The loop: run a vCPU, send its exit to the room that owns it, pick who runs next.
