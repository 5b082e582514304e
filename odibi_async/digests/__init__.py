"""How content becomes digests: plain values, arrays, tables, frames, code; `fingerprint` is the door."""
