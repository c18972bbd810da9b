"""How the lanes of a sweep are cut into blocks, tiles and segments."""
