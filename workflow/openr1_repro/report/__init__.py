"""Everything the other stages measured, as one page that opens offline, and as numbers for programs."""
