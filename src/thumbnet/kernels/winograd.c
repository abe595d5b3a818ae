// What a convolution with a kernel of 3 x 3 or 2 x 2 taps needs when it is computed by tiles (Winograd); see winograd.py.
//
// With 3 x 3 taps an output of 6 x 6 pixels depends on 8 x 8 of the input. Both, and the kernel, are changed into 64 numbers of
// which only those at the same place meet, instead of 9 taps for each of 36 pixels: 64 multiplications where there were 324
// (Lavin & Gray 2016, https://arxiv.org/abs/1509.09308, section 4). Along one side pixels and taps are coefficients of
// polynomials, and the eight places are their values at 0, 1, -1, 2, -2, 1/2, -1/2 and infinity, with all factors on the side of
// the input. So a tile of n pixels along a side, fewer than 6 at the edge of a map, needs n + taps - 1 places, the first ones and
// the last, and meets the same changed kernel. Where tiles of 4 pixels (`step`) need as few for a whole map, as for 7, they are
// taken: fewer places are read, and each for more tiles.
//
// Maps are channels last. Everything else lies in panels of 16 channels: places x panels x tiles x 16 for what was changed (a line
// more for each place where that is an even number of lines), places x panels of D x C x 16 for kernels. So each of the 64 places
// is a matrix product whose operands are read in the order they lie.
//
// Where pooling by 2 x 2 follows, only what it leaves is written, and `chosen`: which of the four was the largest (0 to 3, the
// first of equals; a NaN is the largest of all). Else `chosen` is NULL.

#include "largest.h"
#include "vector.h"

#ifdef FLOAT

#include <omp.h>

enum { SMALL = 4, LARGE = 6, REACH = 8, PLACES = REACH * REACH, LANES = 16 };  // LANES: channels of a panel, a cache line

typedef float lanes[LANES];

enum { PARTS = LANES / WIDTH };

// Rows of a product that fit the registers beside two operands.
#ifdef __AVX512F__
enum { ROWS = 8 };
#else
enum { ROWS = 6 };
#endif

static const float SIXTH = 1 / 6.0f, THIRD = 1 / 3.0f;  // dividing would take most of the time

// Below, `from` and `to` are lanes, `step` and `stride` numbers apart. Of a place its row is the polynomial that vanishes at all the
// others, divided by its value there; of infinity, that which vanishes everywhere else.

// Five pixels of the input at the places 0, 1, -1, 2, -2 of six.
INLINE void of_five(vector d0, vector d1, vector d2, vector d3, vector d4, vector places[5]) {
  vector even = (d2 * 4.0f - d4) * SIXTH, odd = (d1 * 4.0f - d3) * SIXTH;
  vector far_even = (d4 - d2) * (SIXTH / 4), far_odd = (d3 - d1) * (SIXTH / 2);
  places[0] = d0 - d2 * 1.25f + d4 * 0.25f;
  places[1] = even + odd, places[2] = even - odd;
  places[3] = far_even + far_odd, places[4] = far_even - far_odd;
}

// As many pixels of the input as places.
INLINE void of_input(const float *from, long step, float *to, long stride, long places) {
  for (const float *end = from + LANES; from < end; from += WIDTH, to += WIDTH) {
    vector d0 = load(from), d1 = load(from + step);
    vector d2 = {0}, d3 = {0}, d4 = {0}, d5 = {0}, d6 = {0}, d7 = {0};
    if (places > 2) d2 = load(from + 2 * step);
    if (places > 3) d3 = load(from + 3 * step);
    if (places > 4) d4 = load(from + 4 * step);
    if (places > 5) d5 = load(from + 5 * step);
    if (places > 6) d6 = load(from + 6 * step);
    if (places > 7) d7 = load(from + 7 * step);
    if (places == 2) {
      store(to, d0);
      store(to + 7 * stride, d1);
    } else if (places == 3) {
      store(to, d0 - d1);
      store(to + stride, d1);
      store(to + 7 * stride, d2 - d1);
    } else if (places == 4) {
      store(to, d0 - d2);
      store(to + stride, (d2 + d1) * 0.5f);
      store(to + 2 * stride, (d2 - d1) * 0.5f);
      store(to + 7 * stride, d3 - d1);
    } else if (places == 5) {
      store(to, d0 - d2 + (d3 - d1) * 0.5f);
      store(to + stride, d1 + (d2 - d3) * 0.5f);
      store(to + 2 * stride, d2 * 0.5f - (d1 * 2.0f + d3) * SIXTH);
      store(to + 3 * stride, (d3 - d1) * SIXTH);
      store(to + 7 * stride, d4 - d2 + (d1 - d3) * 2.0f);
    } else if (places == 6) {
      vector five[5];
      of_five(d0, d1, d2, d3, d4, five);
#pragma GCC unroll 5
      for (int i = 0; i < 5; i++) store(to + i * stride, five[i]);
      store(to + 7 * stride, d1 * 4.0f - d3 * 5.0f + d5);
    } else if (places == 7) {  // those of six, times (x - 1/2)
      vector here[5], next[5], half = d1 * 4.0f - d3 * 5.0f + d5;
      of_five(d0, d1, d2, d3, d4, here);
      of_five(d1, d2, d3, d4, d5, next);
      store(to, here[0] - next[0] * 2.0f);
      store(to + stride, next[1] * 2.0f - here[1]);
      store(to + 2 * stride, (here[2] - next[2] * 2.0f) * THIRD);
      store(to + 3 * stride, (next[3] * 2.0f - here[3]) * THIRD);
      store(to + 4 * stride, here[4] * 0.2f - next[4] * 0.4f);
      store(to + 5 * stride, half * (32 / 45.0f));
      store(to + 7 * stride, d2 * 4.0f - d4 * 5.0f + d6 - half * 0.5f);
    } else {
      vector even = (d4 * 4.25f - d2 - d6) * (2 / 9.0f), odd = (d3 * 4.25f - d1 - d5) * (2 / 9.0f);
      vector far_even = (d2 * 0.25f - d4 * 1.25f + d6) * (1 / 90.0f), far_odd = (d1 * 0.25f - d3 * 1.25f + d5) * (1 / 45.0f);
      vector near_even = (d2 * 4.0f - d4 * 5.0f + d6) * (32 / 45.0f), near_odd = (d1 * 4.0f - d3 * 5.0f + d5) * (16 / 45.0f);
      store(to, d0 - d6 + (d4 - d2) * 5.25f);
      store(to + stride, even + odd);
      store(to + 2 * stride, even - odd);
      store(to + 3 * stride, far_even + far_odd);
      store(to + 4 * stride, far_even - far_odd);
      store(to + 5 * stride, near_even + near_odd);
      store(to + 6 * stride, near_even - near_odd);
      store(to + 7 * stride, d7 - d1 + (d3 - d5) * 5.25f);
    }
  }
}

// The places of a product -> `pixels`, at most six: the coefficients of a polynomial whose values they sum up.
INLINE void of_products(const float *from, long step, float *to, long stride, long places, long pixels) {
  for (const float *end = from + LANES; from < end; from += WIDTH, to += WIDTH) {
    vector m0 = load(from), last = load(from + 7 * step);
    vector m1 = {0}, m2 = {0}, m3 = {0}, m4 = {0}, m5 = {0}, m6 = {0};
    if (places > 2) m1 = load(from + step);
    if (places > 3) m2 = load(from + 2 * step);
    if (places > 4) m3 = load(from + 3 * step);
    if (places > 5) m4 = load(from + 4 * step);
    if (places > 6) m5 = load(from + 5 * step);
    if (places > 7) m6 = load(from + 6 * step);
    vector even = m1 + m2, odd = m1 - m2, far_even = m3 + m4, far_odd = m3 - m4, near_even = m5 + m6, near_odd = m5 - m6;
    vector y0 = m0 + even + far_even + near_even;
    store(to, pixels == 1 ? y0 + last : y0);
    vector y1 = odd + far_odd * 2.0f + near_odd * 0.5f;
    if (pixels > 1) store(to + stride, pixels == 2 ? y1 + last : y1);
    vector y2 = even + far_even * 4.0f + near_even * 0.25f;
    if (pixels > 2) store(to + 2 * stride, pixels == 3 ? y2 + last : y2);
    vector y3 = odd + far_odd * 8.0f + near_odd * 0.125f;
    if (pixels > 3) store(to + 3 * stride, pixels == 4 ? y3 + last : y3);
    vector y4 = even + far_even * 16.0f + near_even * 0.0625f;
    if (pixels > 4) store(to + 4 * stride, pixels == 5 ? y4 + last : y4);
    if (pixels > 5) store(to + 5 * stride, odd + far_odd * 32.0f + near_odd * 0.03125f + last);
  }
}

// `pixels` of an output's gradient, at most six, which are the coefficients -> eight places.
INLINE void of_gradient(const float *from, long step, float *to, long stride, long pixels) {
  for (const float *end = from + LANES; from < end; from += WIDTH, to += WIDTH) {
    vector g0 = load(from), g1 = {0}, g2 = {0}, g3 = {0}, g4 = {0}, g5 = {0};
    if (pixels > 1) g1 = load(from + step);
    if (pixels > 2) g2 = load(from + 2 * step);
    if (pixels > 3) g3 = load(from + 3 * step);
    if (pixels > 4) g4 = load(from + 4 * step);
    if (pixels > 5) g5 = load(from + 5 * step);
    vector even = g0 + g2 + g4, odd = g1 + g3 + g5;
    vector far_even = g0 + g2 * 4.0f + g4 * 16.0f, far_odd = g1 * 2.0f + g3 * 8.0f + g5 * 32.0f;
    vector near_even = g0 + g2 * 0.25f + g4 * 0.0625f, near_odd = g1 * 0.5f + g3 * 0.125f + g5 * 0.03125f;
    store(to, g0);
    store(to + stride, even + odd);
    store(to + 2 * stride, even - odd);
    store(to + 3 * stride, far_even + far_odd);
    store(to + 4 * stride, far_even - far_odd);
    store(to + 5 * stride, near_even + near_odd);
    store(to + 6 * stride, near_even - near_odd);
    store(to + 7 * stride, load(from + (pixels - 1) * step));
  }
}

// Two taps and a zero, or three -> eight places; and back for the gradient.
INLINE void of_taps(const float *from, long step, float *to, long stride, long taps) {
  for (const float *end = from + LANES; from < end; from += WIDTH, to += WIDTH) {
    vector k0 = load(from), k1 = load(from + step), k2 = load(from + 2 * step);
    vector even = k0 + k2, far_even = k0 + k2 * 4.0f, near_even = k0 + k2 * 0.25f;
    store(to, k0);
    store(to + stride, even + k1);
    store(to + 2 * stride, even - k1);
    store(to + 3 * stride, far_even + k1 * 2.0f);
    store(to + 4 * stride, far_even - k1 * 2.0f);
    store(to + 5 * stride, near_even + k1 * 0.5f);
    store(to + 6 * stride, near_even - k1 * 0.5f);
    store(to + 7 * stride, taps == 2 ? k1 : k2);
  }
}

INLINE void of_places(const float *from, long step, float *to, long stride, long taps) {
  for (const float *end = from + LANES; from < end; from += WIDTH, to += WIDTH) {
    vector m1 = load(from + step), m2 = load(from + 2 * step), m3 = load(from + 3 * step), m4 = load(from + 4 * step);
    vector m5 = load(from + 5 * step), m6 = load(from + 6 * step), last = load(from + 7 * step);
    vector even = m1 + m2, far_even = m3 + m4, near_even = m5 + m6;
    store(to, load(from) + even + far_even + near_even);
    vector second = m1 - m2 + (m3 - m4) * 2.0f + (m5 - m6) * 0.5f;
    store(to + stride, taps == 2 ? second + last : second);
    if (taps == 3) store(to + 2 * stride, even + far_even * 4.0f + near_even * 0.25f + last);
  }
}

INLINE long panels(long channels) { return (channels + LANES - 1) / LANES; }

// `count` of LANES channels; all of them or half, which is what most panels have, without a call.
INLINE void copy_lanes(float *to, const float *from, long count) {
  if (count == LANES) memcpy(to, from, sizeof(lanes));
  else if (count == LANES / 2) memcpy(to, from, sizeof(lanes) / 2);
  else memcpy(to, from, (size_t)count * sizeof(float));
}

// Height and width before pooling, where it was pooled.
typedef struct { const float *numbers; const uint8_t *chosen; long height, width, channels; } image;

INLINE image image_at(const float *maps, const uint8_t *chosen, long height, long width, long channels, long index) {
  long size = height * width * channels / (chosen ? 4 : 1);
  return (image){maps + index * size, chosen ? chosen + index * size : NULL, height, width, channels};
}

// Of `count` lanes those that were chosen `here`; zeros else.
INLINE void keep_chosen(float *lane, const uint8_t *chosen, uint8_t here, long count) {
  if (count == LANES)
#pragma omp simd
    for (long c = 0; c < LANES; c++) lane[c] = chosen[c] == here ? lane[c] : 0;
  else
    for (long c = 0; c < count; c++) lane[c] = chosen[c] == here ? lane[c] : 0;
}

// `high` x `wide` pixels from (top, left), LANES channels from `first`; zeros beyond edges and channels. Of a pooled image each
// number stands where it was chosen, among zeros.
INLINE void read_square(image x, lanes *to, long high, long wide, long top, long left, long first) {
  long count = smaller(LANES, x.channels - first);
  for (long i = 0; i < high; i++)
    for (long j = 0; j < wide; j++) {
      long row = top + i, column = left + j;
      float *lane = to[i * REACH + j];
      int inside = row >= 0 && row < x.height && column >= 0 && column < x.width;
      if (!inside || count < LANES) memset(lane, 0, sizeof(lanes));
      if (!inside) continue;
      if (!x.chosen) {
        copy_lanes(lane, x.numbers + (row * x.width + column) * x.channels + first, count);
        continue;
      }
      long from = (row / 2 * (x.width / 2) + column / 2) * x.channels + first;
      copy_lanes(lane, x.numbers + from, count);
      keep_chosen(lane, x.chosen + from, (uint8_t)(row % 2 * 2 + column % 2), count);
    }
}

// `count` channels of `high` x `wide` pixels to a map of rows of `columns` pixels, half as many where `chosen`.
INLINE void write_square(const lanes *from, float *pixels, uint8_t *chosen, long high, long wide, long columns, long channels,
                         long count) {
  if (!chosen)
    for (long i = 0; i < high; i++)
      for (long j = 0; j < wide; j++) copy_lanes(pixels + (i * columns + j) * channels, from[i * REACH + j], count);
  else
    for (long i = 0; i < high; i += 2)
      for (long j = 0; j < wide; j += 2) {
        const lanes *four = from + i * REACH + j;
        long to = (i / 2 * (columns / 2) + j / 2) * channels;
        lanes best;
        uint8_t at[LANES];
        largest(*four, LANES, REACH * LANES, best, at, LANES);
        copy_lanes(pixels + to, best, count);
        memcpy(chosen + to, at, (size_t)count);
      }
}

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

// Whether a tile of so many pixels along a side has a place, of eight: n + taps - 1, the first ones and the last.
INLINE int has_place(long pixels, long taps, long place) { return place < pixels + taps - 2 || place == REACH - 1; }

INLINE range tiles_with(map m, long place) {
  long row = place / REACH, column = place % REACH;
  if (!has_place(m.step, m.taps, row) || !has_place(m.step, m.taps, column)) return (range){0, 0};
  int bottom = has_place(m.rows % m.step, m.taps, row), right = has_place(m.columns % m.step, m.taps, column);
  range found = {bottom ? 0 : at_bottom(m), at_bottom(m) + whole_tiles(m)};
  if (right) found.to += at_right(m);
  if (right && bottom) found.to += in_corner(m);
  return found;
}

// Numbers from one place to the next: whole lines, an odd number of them, so that the 64 do not meet in one set of the cache.
INLINE long stream_of(map m, long channels) { return (panels(channels) * tiles_of(m) | 1) * LANES; }

// What was changed lies in 64 streams, more than a processor watches: each is told of its lines AHEAD tiles before they are needed.
// So panels are gone through one after the other, not the tiles.
enum { AHEAD = 4 };

INLINE void prepare_lines(const float *line, long stream, int written) {
  for (long place = 0; place < PLACES; place++)
    if (written) __builtin_prefetch(line + place * stream + AHEAD * LANES, 1);
    else __builtin_prefetch(line + place * stream + AHEAD * LANES, 0);
}

// One panel of a tile of `high` x `wide` pixels: to its places, in streams that lie `stream` numbers apart.
INLINE void change_input(image x, long first, long top, long left, long high, long wide, long taps, float *to, long stream) {
  lanes square[PLACES], half[PLACES];
  const float *from = square[0];
  long row = REACH * LANES, column = LANES;
  long down = high + taps - 1, across = wide + taps - 1;  // pixels it depends on
  int inside = top >= 0 && left >= 0 && top + down <= x.height && left + across <= x.width && first + LANES <= x.channels;
  if (inside && !x.chosen) {  // as it lies
    from = x.numbers + (top * x.width + left) * x.channels + first;
    row = x.width * x.channels, column = x.channels;
  } else read_square(x, square, down, across, top, left, first);
  prepare_lines(to, stream, 1);
  for (long j = 0; j < across; j++) of_input(from + j * column, row, half[j], REACH * LANES, down);
  for (long i = 0; i < REACH; i++)
    if (has_place(high, taps, i)) of_input(half[i * REACH], LANES, to + i * REACH * stream, stream, across);
}

// Of `step` x `step` pixels and less at an edge, where the rest counts as zeros.
INLINE void change_gradient(image gradient, long first, long top, long left, long high, long wide, long step, float *to,
                            long stream) {
  lanes square[PLACES], half[PLACES];
  read_square(gradient, square, high, wide, top, left, first);
  prepare_lines(to, stream, 1);
  for (long j = 0; j < wide; j++) of_gradient(square[j], REACH * LANES, half[j], REACH * LANES, high);
  for (long i = 0; i < REACH; i++)
    if (has_place(step, 3, i)) of_gradient(half[i * REACH], LANES, to + i * REACH * stream, stream, wide);
}

// And from its places to `count` channels of its pixels.
INLINE void change_back(const float *from, long stream, long high, long wide, long taps, float *pixels, uint8_t *chosen,
                        long columns, long channels, long count) {
  lanes half[PLACES], whole[PLACES];
  prepare_lines(from, stream, 0);
  for (long j = 0; j < REACH; j++)
    if (has_place(wide, taps, j)) of_products(from + j * stream, REACH * stream, half[j], REACH * LANES, high + taps - 1, high);
  for (long i = 0; i < high; i++) of_products(half[i * REACH], LANES, whole[i * REACH], LANES, wide + taps - 1, wide);
  write_square(whole, pixels, chosen, high, wide, columns, channels, count);
}

// On large maps most tiles are whole: the compiler makes code of their own for them, in which it knows their size.
INLINE int is_square(tile t, long side) { return t.high == side && t.wide == side; }

// x: N H W C -> 64 x panels of C x tiles x 16, for a map of the output. H and W are those before pooling.
static void change_inputs(const float *x, const uint8_t *chosen, float *to, map m, long height, long width, long channels,
                          long padding, long threads) {
  long tiles = tiles_of(m), stream = stream_of(m, channels), taps = m.taps;
#pragma omp parallel for num_threads(threads) schedule(static)
  for (long work = 0; work < panels(channels) * tiles; work++) {
    tile t = tile_at(m, work % tiles);
    image from = image_at(x, chosen, height, width, channels, t.image);
    long first = work / tiles * LANES, top = t.top - padding, left = t.left - padding;
    float *line = to + work * LANES;
    if (is_square(t, LARGE) && taps == 3) change_input(from, first, top, left, LARGE, LARGE, 3, line, stream);
    else if (is_square(t, SMALL) && taps == 3) change_input(from, first, top, left, SMALL, SMALL, 3, line, stream);
    else change_input(from, first, top, left, t.high, t.wide, taps, line, stream);
  }
}

// Products, 64 x panels of D x tiles x 16 -> y: N H' W' D, or N H'/2 W'/2 D with `chosen` of the same shape.
static void change_products_back(const float *products, float *y, uint8_t *chosen, map m, long channels, long threads) {
  long tiles = tiles_of(m), stream = stream_of(m, channels), taps = m.taps, columns = m.columns, part = chosen ? 2 : 1;
#pragma omp parallel for num_threads(threads) schedule(static)
  for (long work = 0; work < panels(channels) * tiles; work++) {
    tile t = tile_at(m, work % tiles);
    const float *from = products + work * LANES;
    long first = work / tiles * LANES, count = smaller(LANES, channels - first);
    long at = ((t.image * m.rows + t.top) / part * (columns / part) + t.left / part) * channels + first;
    uint8_t *which = chosen ? chosen + at : NULL;
    int usual = taps == 3 && count == LANES;
    if (usual && is_square(t, LARGE)) change_back(from, stream, LARGE, LARGE, 3, y + at, which, columns, channels, LANES);
    else if (usual && is_square(t, SMALL)) change_back(from, stream, SMALL, SMALL, 3, y + at, which, columns, channels, LANES);
    else change_back(from, stream, t.high, t.wide, taps, y + at, which, columns, channels, count);
  }
}

// The gradient of the output, N H' W' D or pooled -> 64 x panels of D x tiles x 16, what the kernel's gradient is made of.
static void change_gradients(const float *gradient, const uint8_t *chosen, float *to, map m, long channels, long threads) {
  long tiles = tiles_of(m), stream = stream_of(m, channels);
#pragma omp parallel for num_threads(threads) schedule(static)
  for (long work = 0; work < panels(channels) * tiles; work++) {
    tile t = tile_at(m, work % tiles);
    image from = image_at(gradient, chosen, m.rows, m.columns, channels, t.image);
    long first = work / tiles * LANES;
    float *line = to + work * LANES;
    if (is_square(t, LARGE)) change_gradient(from, first, t.top, t.left, LARGE, LARGE, LARGE, line, stream);
    else if (is_square(t, SMALL)) change_gradient(from, first, t.top, t.left, SMALL, SMALL, SMALL, line, stream);
    else change_gradient(from, first, t.top, t.left, t.high, t.wide, m.step, line, stream);
  }
}

// Where the tap of a kernel, D C taps, lies. `turned`: the kernel of the gradient of the input, whose outputs are C, turned round.
INLINE long tap_at(long out, long in, long tap, long count, long channels, long turned) {
  return turned ? (in * channels + out + 1) * count - 1 - tap : (out * channels + in) * count + tap;
}

// A kernel D C taps -> 64 x panels of D x C x 16, of which tiles of `step` pixels meet; `turned` -> 64 x panels of C x D x 16.
// `channels`: its C.
static void change_kernel(const float *kernel, float *to, long outputs, long inputs, long channels, long turned, long taps,
                          long step, long threads) {
  long out = panels(outputs), stream = out * inputs * LANES;
#pragma omp parallel for num_threads(threads) schedule(static)
  for (long work = 0; work < out * inputs; work++) {
    long first = work / inputs * LANES, in = work % inputs;
    lanes k[3 * REACH] = {0}, half[PLACES];
    for (long lane = 0; lane < smaller(LANES, outputs - first); lane++)
      for (long tap = 0; tap < taps * taps; tap++)
        k[tap / taps * REACH + tap % taps][lane] = kernel[tap_at(first + lane, in, tap, taps * taps, channels, turned)];
    for (long j = 0; j < 3; j++) of_taps(k[j], REACH * LANES, half[j], REACH * LANES, taps);
    for (long i = 0; i < REACH; i++)
      if (has_place(step, taps, i)) of_taps(half[i * REACH], LANES, to + i * REACH * stream + work * LANES, stream, taps);
  }
}

// The gradient of a changed kernel, 64 x panels of D x C x 16 with C filled up to a multiple of 16 -> that of the kernel, D C taps.
static void change_kernel_back(const float *changed, float *kernel, long channels_out, long channels, long taps, long threads) {
  long out = panels(channels_out), lines = panels(channels) * LANES, stream = out * lines * LANES;
#pragma omp parallel for num_threads(threads) schedule(static)
  for (long panel = 0; panel < out; panel++)
    for (long c = 0; c < channels; c++) {
      lanes half[PLACES], whole[PLACES];
      const float *from = changed + (panel * lines + c) * LANES;
      for (long j = 0; j < REACH; j++) of_places(from + j * stream, REACH * stream, half[j], REACH * LANES, taps);
      for (long i = 0; i < taps; i++) of_places(half[i * REACH], LANES, whole[i * REACH], LANES, taps);
      for (long lane = 0; lane < smaller(LANES, channels_out - panel * LANES); lane++)
        for (long tap = 0; tap < taps * taps; tap++)
          kernel[tap_at(panel * LANES + lane, c, tap, taps * taps, channels, 0)] = whole[tap / taps * REACH + tap % taps][lane];
    }
}

// `count` rows of 16 sums from where they are kept into registers, and back. (memcpy would go through memory.)
INLINE void load_sums(const float *from, long count, vector sums[ROWS][PARTS]) {
#pragma GCC unroll 16
  for (int i = 0; i < count * PARTS; i++) sums[i / PARTS][i % PARTS] = ((const vector *)from)[i];
}

INLINE void store_sums(vector sums[ROWS][PARTS], long count, float *to) {
#pragma GCC unroll 16
  for (int i = 0; i < count * PARTS; i++) ((vector *)to)[i] = sums[i / PARTS][i % PARTS];
}

// Adds to `count` rows of sums, at most ROWS: to each, `length` numbers of a row, `stride` apart, times as many lines of `other`.
INLINE void add_products(const float *rows, long row, long count, const float *other, long length, long stride,
                         vector sums[ROWS][PARTS]) {
  for (long k = 0; k < length; k++) {
    vector line[PARTS];
#pragma GCC unroll 2
    for (int part = 0; part < PARTS; part++) {
      line[part] = ((const vector *)(other + k * LANES))[part];
      IN_REGISTER(line[part]);
    }
#pragma GCC unroll 8
    for (int r = 0; r < count; r++) {
      float factor = rows[r * row + k * stride];
#pragma GCC unroll 2
      for (int part = 0; part < PARTS; part++) sums[r][part] += factor * line[part];
    }
  }
}

// `count` changed tiles, of C numbers in panels that lie `tiles` lines apart, by C lines of a kernel.
INLINE void multiply_tiles(const float *changed, long tiles, long count, const float *lines, long channels, float *products) {
  vector sums[ROWS][PARTS] = {0};
  for (long c = 0; c < channels; c += LANES)
    add_products(changed + c * tiles, LANES, count, lines + c * LANES, smaller(LANES, channels - c), 1, sums);
  store_sums(sums, count, products);
}

// Changed tiles, 64 x panels of C x tiles x 16, by a changed kernel, 64 x panels of D x C x 16 -> 64 x panels of D x tiles x 16.
// Where fewer than ROWS tiles are left, the last ROWS are multiplied, some of them once more.
static void multiply(const float *changed, const float *kernel, float *products, map m, long channels, long channels_out,
                     long threads) {
  long tiles = tiles_of(m), out = panels(channels_out);
#pragma omp parallel for num_threads(threads) schedule(dynamic)
  for (long work = 0; work < PLACES * out; work++) {
    const float *lines = kernel + work * channels * LANES, *from = changed + work / out * stream_of(m, channels);
    float *to = products + work / out * stream_of(m, channels_out) + work % out * tiles * LANES;
    range all = tiles_with(m, work / out);
    long left = all.to - all.from;
    for (long index = all.from; left >= ROWS; index += ROWS, left -= ROWS)
      multiply_tiles(from + index * LANES, tiles, ROWS, lines, channels, to + index * LANES);
    if (left && all.to - all.from >= ROWS)
      multiply_tiles(from + (all.to - ROWS) * LANES, tiles, ROWS, lines, channels, to + (all.to - ROWS) * LANES);
    else
      for (long index = all.to - left; index < all.to; index++)
        multiply_tiles(from + index * LANES, tiles, 1, lines, channels, to + index * LANES);
  }
}

// Adds to `count` lines of the gradient of a changed kernel the sums over `length` tiles.
INLINE void add_gradient(const float *changed, long count, const float *lines, long length, float *to) {
  vector sums[ROWS][PARTS];
  load_sums(to, count, sums);
  add_products(changed, 1, count, lines, length, LANES, sums);
  store_sums(sums, count, to);
}

// Adds to the gradient of a changed kernel, 64 x panels of D x C x 16 with C filled up to a multiple of 16, the sums over tiles
// of the changed input, 64 x panels of C x tiles x 16, times the changed gradient of the output, 64 x panels of D x tiles x 16.
static void add_gradients(const float *changed, const float *gradient, float *of_kernel, map m, long channels, long channels_out,
                          long threads) {
  enum { REST = LANES % ROWS };
  long tiles = tiles_of(m), in = panels(channels), out = panels(channels_out);
#pragma omp parallel for num_threads(threads) schedule(dynamic)
  for (long work = 0; work < PLACES * out; work++) {
    range all = tiles_with(m, work / out);
    if (all.from == all.to) continue;
    const float *lines = gradient + work / out * stream_of(m, channels_out) + (work % out * tiles + all.from) * LANES;
    const float *from = changed + work / out * stream_of(m, channels) + all.from * LANES;
    for (long panel = 0; panel < in; panel++, from += tiles * LANES) {
      float *to = of_kernel + (work * in + panel) * LANES * LANES;
      for (long c = 0; c + ROWS <= LANES; c += ROWS) add_gradient(from + c, ROWS, lines, all.to - all.from, to + c * LANES);
      if (REST) add_gradient(from + LANES - REST, REST, lines, all.to - all.from, to + (LANES - REST) * LANES);
    }
  }
}

// A convolution's maps in and out, that of the output for one image, and its padding.
typedef struct {
  const float *x;
  const uint8_t *of_x;
  float *y;
  uint8_t *of_y;
  long height, width, channels, channels_out, padding;
  map out;
} convolution;

// `count` images from the `first` one on.
static void convolve_images(convolution m, const float *changed_kernel, float *changed, float *products, long first, long count,
                            long threads) {
  map out = m.out;
  out.images = count;
  long x = first * m.height * m.width * m.channels / (m.of_x ? 4 : 1);
  long y = first * out.rows * out.columns * m.channels_out / (m.of_y ? 4 : 1);
  change_inputs(m.x + x, m.of_x ? m.of_x + x : NULL, changed, out, m.height, m.width, m.channels, m.padding, threads);
  multiply(changed, changed_kernel, products, out, m.channels, m.channels_out, threads);
  change_products_back(products, m.y + y, m.of_y ? m.of_y + y : NULL, out, m.channels_out, threads);
}

// x: N H W C, convolved by `kernel`, D C taps x taps (`turned`: by that of the gradient of the input, whose outputs are C) -> y:
// N H' W' D, H' and W' being `rows` and `columns`, in tiles of `step` pixels. The kernel is changed into `changed_kernel`. `teams`
// threads have a part of `changed` and `products` each for `at_once` images, where none waits for another or takes lines from its
// cache; 1: all threads share one, for few images. Given `of_x`, x was pooled, and it was chosen; given `of_y`, y is to be.
void winograd_convolve(const float *x, const uint8_t *of_x, const float *kernel, float *y, uint8_t *of_y, float *changed,
                       float *changed_kernel, float *products, long images, long at_once, long teams, long height, long width,
                       long channels, long rows, long columns, long step, long channels_out, long padding, long turned, long taps,
                       long threads) {
  map part = {at_once, rows, columns, taps, step};
  convolution m = {x, of_x, y, of_y, height, width, channels, channels_out, padding, part};
  change_kernel(kernel, changed_kernel, channels_out, channels, turned ? channels_out : channels, turned, taps, step,
                threads);
  if (teams == 1) {
    for (long n = 0; n < images; n += at_once)
      convolve_images(m, changed_kernel, changed, products, n, smaller(at_once, images - n), threads);
    return;
  }
#pragma omp parallel for num_threads(teams) schedule(dynamic)
  for (long n = 0; n < images; n += at_once) {
    long own = omp_get_thread_num() * PLACES;
    convolve_images(m, changed_kernel, changed + own * stream_of(part, channels), products + own * stream_of(part, channels_out), n,
                    smaller(at_once, images - n), 1);
  }
}

// The gradient of the kernel, D C taps x taps, from x: N H W C and the gradient of the output, N H' W' D, pooled where `chosen`.
// `total`, 64 x panels of D x C x 16 with C filled up to a multiple of 16, is zero.
void winograd_kernel_gradient(const float *x, const float *gradient, const uint8_t *chosen, float *of_kernel, float *changed,
                              float *of_output, float *total, long images, long at_once, long height, long width, long channels,
                              long rows, long columns, long step, long channels_out, long padding, long taps, long threads) {
  long x_image = height * width * channels, y_image = rows * columns * channels_out / (chosen ? 4 : 1);
  for (long n = 0; n < images; n += at_once) {
    map part = {smaller(at_once, images - n), rows, columns, taps, step};
    change_inputs(x + n * x_image, NULL, changed, part, height, width, channels, padding, threads);
    change_gradients(gradient + n * y_image, chosen ? chosen + n * y_image : NULL, of_output, part, channels_out, threads);
    add_gradients(changed, of_output, total, part, channels, channels_out, threads);
  }
  change_kernel_back(total, of_kernel, channels_out, channels, taps, threads);
}

#endif
