// A map in tiles, and which of them have a place among what they are changed into; see winograd.c.

#ifndef TILING
#define TILING

#include "points.h"

// A map, N images of `rows` x `columns` pixels, in tiles: those at the bottom of all images first, then those of `step` x `step`,
// those at the right, and those in the corner. So the tiles that have a place are neighbours.
typedef struct { long images, rows, columns, taps, step; } map;
typedef struct { long image, top, left, high, wide; } tile;
typedef struct { long from, to; } range;

INLINE long at_bottom(map m) { return m.rows % m.step ? m.images * (m.columns / m.step) : 0; }
INLINE long whole_tiles(map m) { return m.images * (m.rows / m.step) * (m.columns / m.step); }
INLINE long at_right(map m) { return m.columns % m.step ? m.images * (m.rows / m.step) : 0; }
INLINE long in_corner(map m) { return m.rows % m.step && m.columns % m.step ? m.images : 0; }
INLINE long tiles_of(map m) { return at_bottom(m) + whole_tiles(m) + at_right(m) + in_corner(m); }

INLINE tile tile_at(map m, long index) {
  long down = m.rows / m.step, across = m.columns / m.step, high = m.rows % m.step, wide = m.columns % m.step;
  if (index < at_bottom(m)) return (tile){index / across, down * m.step, index % across * m.step, high, m.step};
  index -= at_bottom(m);
  if (index < whole_tiles(m))
    return (tile){index / (down * across), index / across % down * m.step, index % across * m.step, m.step, m.step};
  index -= whole_tiles(m);
  if (index < at_right(m)) return (tile){index / down, index % down * m.step, across * m.step, m.step, wide};
  return (tile){index - at_right(m), down * m.step, across * m.step, high, wide};
}

// Whether a tile of so many pixels along a side has a place: n + taps - 1 of them, the first ones and the last.
INLINE int has_place(long pixels, long taps, long place) { return place < pixels + taps - 2 || place == INFINITE; }

INLINE range tiles_with(map m, long place) {
  long row = place / REACH, column = place % REACH;
  if (!has_place(m.step, m.taps, row) || !has_place(m.step, m.taps, column)) return (range){0, 0};
  int bottom = has_place(m.rows % m.step, m.taps, row), right = has_place(m.columns % m.step, m.taps, column);
  range found = {bottom ? 0 : at_bottom(m), at_bottom(m) + whole_tiles(m)};
  if (right) found.to += at_right(m);
  if (right && bottom) found.to += in_corner(m);
  return found;
}

// On large maps most tiles are whole: the compiler makes code of their own for them, in which it knows their size.
INLINE int is_square(tile t, long side) { return t.high == side && t.wide == side; }

#endif
