// What a convolution with a kernel of 3 x 3 or 2 x 2 taps needs when it is computed by tiles (Winograd); see winograd.py.
//
// With 3 x 3 taps an output of 6 x 6 pixels depends on 8 x 8 of the input. Both, and the kernel, are changed into 64 numbers of
// which only those at the same place meet, instead of 9 taps for each of 36 pixels: 64 multiplications where there were 324
// (Lavin & Gray 2016, https://arxiv.org/abs/1509.09308, section 4). Along one side the eight places are values of polynomials at
// points (points.h). So a tile of n pixels along a side, fewer than 6 at the edge of a map, needs n + taps - 1 places, the first ones
// and the last, and meets the same changed kernel. Where tiles of 4 pixels (`step`) need as few for a whole map, as for 7, they are
// taken: fewer places are read, and each for more tiles. In bf16 all tiles are of 4 pixels, with 36 places.
//
// Maps are channels last. Everything else lies in lines of 16 elements. What is multiplied by one instruction is an element: a
// float, or in bf16 two numbers, whose products go into one sum. The two are channels of two panels of 16, c and c + 16, or, where
// the sum is over tiles, those of two tiles. So a line holds 16 or 32 channels of a tile, or 16 of two, and what was changed is
// places x panels x tiles x 16 elements (a line more for each place where that is an even number of lines), a kernel places x panels
// of D x C x 16, products places x panels of D x tiles x 16 floats: each place is a matrix product whose operands are read in the
// order they lie.
//
// Where pooling by 2 x 2 follows, only what it leaves is written, and `chosen`: which of the four was the largest (0 to 3, the
// first of equals; a NaN is the largest of all). Else `chosen` is NULL.

#include "number.h"

#if defined FLOAT || defined __AVX512BF16__

#include <omp.h>

#include "largest.h"
#include "points.h"

#ifdef FLOAT

enum { TERMS = 1 };  // numbers of an element

typedef float element;

typedef vector factors;

INLINE vector add_product(vector sums, element factor, factors line) { return sums + factor * line; }

#else

#include <immintrin.h>

enum { TERMS = 2 };

typedef uint32_t element;

typedef uint32_t factors __attribute__((vector_size(64), aligned(4)));

INLINE vector add_product(vector sums, element factor, factors line) {
  return (vector)_mm512_dpbf16_ps((__m512)sums, (__m512bh)_mm512_set1_epi32((int)factor), (__m512bh)line);
}

// Two times 16 floats -> 16 elements.
INLINE void store_pairs(const float *low, const float *high, element *to) {
  __m512i one_after_the_other = (__m512i)_mm512_cvtne2ps_pbh(_mm512_loadu_ps(high), _mm512_loadu_ps(low));
  __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21, 5, 20, 4, 19, 3,
                                   18, 2, 17, 1, 16, 0);
  _mm512_storeu_si512(to, _mm512_permutexvar_epi16(order, one_after_the_other));
}

#endif

enum { PARTS = LANES / WIDTH };

// Rows of a product that fit the registers beside two operands.
#ifdef __AVX512F__
enum { ROWS = 8 };
#else
enum { ROWS = 6 };
#endif

INLINE long panels(long channels) { return (channels + LANES - 1) / LANES; }

// Elements that the channels of an input make, and lines of them: the last line may hold fewer.
INLINE long lines_of(long channels) { return (panels(channels) + TERMS - 1) / TERMS; }
INLINE long elements(long channels) {
  long before = (lines_of(channels) - 1) * LANES;
  return before + smaller(LANES, channels - before * TERMS);
}

// `count` of LANES channels to a map; all of them, as in most panels, in vectors.
INLINE void write_lanes(number *to, const float *from, long count) {
  if (count == LANES)
    for (long c = 0; c < LANES; c += WIDTH) store_numbers(to + c, load(from + c));
  else
    for (long c = 0; c < count; c++) to[c] = narrow(from[c]);
}

// Height and width before pooling, where it was pooled.
typedef struct { const number *numbers; const uint8_t *chosen; long height, width, channels; } image;

INLINE image image_at(const number *maps, const uint8_t *chosen, long height, long width, long channels, long index) {
  long size = height * width * channels / (chosen ? 4 : 1);
  return (image){maps + index * size, chosen ? chosen + index * size : NULL, height, width, channels};
}

// Where `down` rows from `top` on begin among the numbers of an image; OUTSIDE beyond its edges. Two rows were pooled into one.
enum { OUTSIDE = -1 };

INLINE void find_rows(image x, long top, long down, long rows[REACH]) {
  long row = (x.chosen ? x.width / 2 : x.width) * x.channels;
#pragma GCC unroll 8
  for (long i = 0; i < down; i++) {
    long at = x.chosen ? (top + i) / 2 : top + i;
    rows[i] = top + i >= 0 && top + i < x.height ? at * row : OUTSIDE;
  }
}

// Their pixels in a column, WIDTH channels from `first`; zeros beyond edges and channels. Of a pooled image each number stands where
// it was chosen, among zeros.
INLINE void read_column(image x, const long rows[REACH], long top, long down, long column, long first, vector pixels[REACH]) {
  long at = (x.chosen ? column / 2 : column) * x.channels + first, few = x.channels - first;
  int there = column >= 0 && column < x.width && few > 0;
#pragma GCC unroll 8
  for (long i = 0; i < down; i++) {
    pixels[i] = (vector){0};
    if (!there || rows[i] == OUTSIDE) continue;
    pixels[i] = load_numbers(x.numbers + rows[i] + at, few);
    if (x.chosen)
      pixels[i] = keep_where(x.chosen + rows[i] + at, (uint8_t)((top + i) % 2 * 2 + column % 2), pixels[i], few);
  }
}

// `count` channels of `high` x `wide` pixels to a map of rows of `columns` pixels, half as many where `chosen`.
INLINE void write_square(const lanes *from, number *pixels, uint8_t *chosen, long high, long wide, long columns, long channels,
                         long count) {
  if (!chosen)
    for (long i = 0; i < high; i++)
      for (long j = 0; j < wide; j++) write_lanes(pixels + (i * columns + j) * channels, from[i * REACH + j], count);
  else
    for (long i = 0; i < high; i += 2)
      for (long j = 0; j < wide; j += 2) {
        const lanes *four = from + i * REACH + j;
        long to = (i / 2 * (columns / 2) + j / 2) * channels;
        lanes best;
        uint8_t at[LANES];
        for (long c = 0; c < LANES; c += WIDTH)
          store(best + c, largest_of(load(four[0] + c), load(four[1] + c), load(four[REACH] + c), load(four[REACH + 1] + c), at + c));
        write_lanes(pixels + to, best, count);
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

// Elements from one place to the next: whole lines, an odd number of them, so that the places do not meet in one set of the cache.
INLINE long stream_of(long lines) { return (lines | 1) * LANES; }

// What was changed lies in up to 64 streams, more than a processor watches: each is told of its lines AHEAD tiles before they are
// needed. So panels are gone through one after the other, not the tiles.
// So is what a pooled image was, SOON tiles before.
enum { AHEAD = 4, SOON = 4 };

INLINE void prepare_lines(const void *line, long stream, int written) {
  for (long place = 0; place < PLACES; place++)
    if (written) __builtin_prefetch((const element *)line + place * stream + AHEAD * LANES, 1);
    else __builtin_prefetch((const element *)line + place * stream + AHEAD * LANES, 0);
}

// The places of a tile's products -> `count` channels of its pixels.
INLINE void change_back(const float *from, long stream, long high, long wide, long taps, number *pixels, uint8_t *chosen,
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

// Maps that are changed: the input, or the gradient of the output, whose `padding` is 0. Height and width are those before pooling.
typedef struct {
  const number *numbers;
  const uint8_t *chosen;
  long height, width, channels, padding;
  int is_gradient;
} source;

// One panel of a tile, taken as `high` x `wide`: the pixels it depends on -> places down, pixels across.
INLINE void change_down(source x, tile t, long high, long wide, long panel, long taps, lanes *half) {
  image from = image_at(x.numbers, x.chosen, x.height, x.width, x.channels, t.image);
  long top = t.top - x.padding, left = t.left - x.padding, more = x.is_gradient ? 0 : taps - 1;
  within(high + more, 1, REACH), within(wide + more, 1, REACH);
  long rows[REACH];
  find_rows(from, top, high + more, rows);
  for (long j = 0; j < wide + more; j++)
    for (long c = 0; c < LANES; c += WIDTH) {
      vector pixels[REACH];
      read_column(from, rows, top, high + more, left + j, panel * LANES + c, pixels);
      if (x.is_gradient) of_gradient(pixels, half[j] + c, REACH * LANES, high);
      else of_input(pixels, half[j] + c, REACH * LANES, high + more);
    }
}

// A row of those -> its places, `stride` numbers apart.
INLINE void change_across(source x, const lanes *row, long wide, long taps, float *to, long stride) {
  long count = x.is_gradient ? wide : wide + taps - 1;
  within(count, 1, REACH);
  for (long c = 0; c < LANES; c += WIDTH) {
    vector pixels[REACH];
#pragma GCC unroll 8
    for (long j = 0; j < count; j++) pixels[j] = load(row[j] + c);
    if (x.is_gradient) of_gradient(pixels, to + c, stride, wide);
    else of_input(pixels, to + c, stride, count);
  }
}

// Tells the processor of the numbers that a tile of a pooled image depends on, those of one panel, and of where they were chosen: two
// streams whose next lines it does not foresee, as it does those of other images.
INLINE void prepare_chosen(source x, tile t, long taps, long panel) {
  image from = image_at(x.numbers, x.chosen, x.height, x.width, x.channels, t.image);
  long more = x.is_gradient ? 0 : taps - 1, top = t.top - x.padding, left = t.left - x.padding;
  long bottom = smaller(top + t.high + more, x.height), right = smaller(left + t.wide + more, x.width);
  for (long i = larger(top, 0) / 2; i * 2 < bottom; i++)
    for (long j = larger(left, 0) / 2; j * 2 < right; j++) {
      long at = (i * (x.width / 2) + j) * x.channels + panel * LANES;
      __builtin_prefetch(from.numbers + at), __builtin_prefetch(from.chosen + at);
    }
}

// How elements are made of numbers: each of its own, of those of two panels, or of two tiles.
enum pairing { PANELS, TILES };

INLINE long changed_lines(map m, long channels, enum pairing of) {
  return of == PANELS ? lines_of(channels) * tiles_of(m) : panels(channels) * ((tiles_of(m) + TERMS - 1) / TERMS);
}

// One panel of a tile, or two, of `other`, if it is there, to their places, in streams that lie `stream` elements apart.
typedef struct { tile at; long panel; int there; } piece;

#ifdef FLOAT

INLINE void change_pieces(source x, piece one, piece other, long high, long wide, long taps, element *to, long stream) {
  lanes half[PLACES];
  (void)other;
  change_down(x, one.at, high, wide, one.panel, taps, half);
  for (long i = 0; i < REACH; i++)
    if (has_place(high, taps, i)) change_across(x, half + i * REACH, wide, taps, to + i * REACH * stream, stream);
}

#else

INLINE void change_pieces(source x, piece one, piece other, long high, long wide, long taps, element *to, long stream) {
  lanes half[PLACES], half_of_other[PLACES];
  change_down(x, one.at, high, wide, one.panel, taps, half);
  if (other.there) change_down(x, other.at, high, wide, other.panel, taps, half_of_other);
  else memset(half_of_other, 0, sizeof(half_of_other));
  for (long i = 0; i < REACH; i++) {
    if (!has_place(high, taps, i)) continue;
    lanes row[REACH] = {0}, row_of_other[REACH] = {0};
    change_across(x, half + i * REACH, wide, taps, row[0], LANES);
    change_across(x, half_of_other + i * REACH, wide, taps, row_of_other[0], LANES);
    for (long j = 0; j < REACH; j++)
      if (has_place(wide, taps, j)) store_pairs(row[j], row_of_other[j], to + (i * REACH + j) * stream);
  }
}

#endif

// A line of elements. Of two tiles that follow each other the larger holds the smaller, which is changed as if it were as large, with
// zeros for the gradients beyond the map: it adds the same to the sums.
INLINE void change_line(source x, map m, long panel, long index, enum pairing of, element *line, long stream) {
  tile t = tile_at(m, index);
  piece one = {t, panel, 1}, other = {t, panel + 1, panel + 1 < panels(x.channels)};
  if (of == TILES) other = (piece){index + 1 < tiles_of(m) ? tile_at(m, index + 1) : t, panel, index + 1 < tiles_of(m)};
  long high = TERMS == 1 ? t.high : larger(t.high, other.at.high), wide = TERMS == 1 ? t.wide : larger(t.wide, other.at.wide);
  if (high == LARGE && wide == LARGE && m.taps == 3) change_pieces(x, one, other, LARGE, LARGE, 3, line, stream);
  else if (high == SMALL && wide == SMALL && m.taps == 3) change_pieces(x, one, other, SMALL, SMALL, 3, line, stream);
  else change_pieces(x, one, other, high, wide, m.taps, line, stream);
}

// x: N H W C -> places x lines x 16 elements, for a map of the output.
static void change(source x, element *to, map m, enum pairing of, long threads) {
  long per_line = of == TILES ? TERMS : 1, lines = (tiles_of(m) + per_line - 1) / per_line, all = changed_lines(m, x.channels, of);
#pragma omp parallel for num_threads(threads) schedule(static)
  for (long work = 0; work < all; work++) {
    long panel = work / lines * (of == PANELS ? TERMS : 1), index = work % lines * per_line;
    for (long k = 0; k < per_line; k++)
      if (x.chosen && index + SOON + k < tiles_of(m)) prepare_chosen(x, tile_at(m, index + SOON + k), m.taps, panel);
    prepare_lines(to + work * LANES, stream_of(all), 1);
    change_line(x, m, panel, index, of, to + work * LANES, stream_of(all));
  }
}

// Products, places x panels of D x tiles x 16 -> y: N H' W' D, or N H'/2 W'/2 D with `chosen` of the same shape.
static void change_products_back(const float *products, number *y, uint8_t *chosen, map m, long channels, long threads) {
  long tiles = tiles_of(m), stream = stream_of(panels(channels) * tiles), taps = m.taps, columns = m.columns;
  long part = chosen ? 2 : 1;
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

// Where the tap of a kernel, D C taps, lies. `turned`: the kernel of the gradient of the input, whose outputs are C, turned round.
INLINE long tap_at(long out, long in, long tap, long count, long channels, long turned) {
  return turned ? (in * channels + out + 1) * count - 1 - tap : (out * channels + in) * count + tap;
}

// Sixteen outputs of an input of a kernel D C taps, at places `stream` numbers apart; nothing of an input that is not there.
INLINE void change_taps(const float *kernel, long first, long outputs, long in, long channels, long turned, long taps, long step,
                        float *to, long stream) {
  lanes k[3 * REACH] = {0}, half[PLACES];
  for (long lane = 0; lane < smaller(LANES, outputs - first); lane++)
    for (long i = 0; i < taps; i++)
      for (long j = 0; j < taps; j++)
        k[i * REACH + j][lane] = kernel[tap_at(first + lane, in, i * taps + j, taps * taps, channels, turned)];
  for (long j = 0; j < 3; j++) of_taps(k[j], REACH * LANES, half[j], REACH * LANES, taps);
  for (long i = 0; i < REACH; i++)
    if (has_place(step, taps, i)) of_taps(half[i * REACH], LANES, to + i * REACH * stream, stream, taps);
}

// A kernel D C taps -> places x panels of D x C x 16, of which tiles of `step` pixels meet; `turned` -> places x panels of C x D x
// 16. `channels`: its C.
static void change_kernel(const float *kernel, element *to, long outputs, long inputs, long channels, long turned, long taps,
                          long step, long threads) {
  long out = panels(outputs), in = elements(inputs), stream = out * in * LANES;
#pragma omp parallel for num_threads(threads) schedule(static)
  for (long work = 0; work < out * in; work++) {
    long first = work / in * LANES, input = work % in / LANES * LANES * TERMS + work % in % LANES;
#ifdef FLOAT
    change_taps(kernel, first, outputs, input, channels, turned, taps, step, to + work * LANES, stream);
#else
    lanes low[PLACES] = {0}, high[PLACES] = {0};
    change_taps(kernel, first, outputs, input, channels, turned, taps, step, low[0], LANES);
    if (input + LANES < inputs)
      change_taps(kernel, first, outputs, input + LANES, channels, turned, taps, step, high[0], LANES);
    for (long place = 0; place < PLACES; place++) store_pairs(low[place], high[place], to + place * stream + work * LANES);
#endif
  }
}

// The gradient of a changed kernel, places x panels of D x C x 16 with C filled up to a multiple of 16 -> that of the kernel, D C taps.
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
        for (long i = 0; i < taps; i++)
          for (long j = 0; j < taps; j++)
            kernel[tap_at(panel * LANES + lane, c, i * taps + j, taps * taps, channels, 0)] = whole[i * REACH + j][lane];
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

// Adds to `count` rows of sums, at most ROWS: to each, `length` elements of a row, `stride` apart, times as many lines of `other`.
INLINE void add_products(const element *rows, long row, long count, const element *other, long length, long stride,
                         vector sums[ROWS][PARTS]) {
  for (long k = 0; k < length; k++) {
    factors line[PARTS];
#pragma GCC unroll 2
    for (int part = 0; part < PARTS; part++) {
      line[part] = ((const factors *)(other + k * LANES))[part];
      IN_REGISTER(line[part]);
    }
#pragma GCC unroll 8
    for (int r = 0; r < count; r++) {
      element factor = rows[r * row + k * stride];
#pragma GCC unroll 2
      for (int part = 0; part < PARTS; part++) sums[r][part] = add_product(sums[r][part], factor, line[part]);
    }
  }
}

// `count` changed tiles, their lines `tiles` apart, by `length` lines of a kernel.
INLINE void multiply_tiles(const element *changed, long tiles, long count, const element *lines, long length, float *products) {
  vector sums[ROWS][PARTS] = {0};
  for (long c = 0; c < length; c += LANES)
    add_products(changed + c * tiles, LANES, count, lines + c * LANES, smaller(LANES, length - c), 1, sums);
  store_sums(sums, count, products);
}

// Changed tiles, places x lines of C x tiles x 16, by a changed kernel, places x panels of D x C x 16 -> places x panels of D x
// tiles x 16. Where fewer than ROWS tiles are left, the last ROWS are multiplied, some of them once more.
static void multiply(const element *changed, const element *kernel, float *products, map m, long channels, long channels_out,
                     long threads) {
  long tiles = tiles_of(m), out = panels(channels_out), length = elements(channels);
  long stream = stream_of(changed_lines(m, channels, PANELS)), stream_out = stream_of(out * tiles);
#pragma omp parallel for num_threads(threads) schedule(dynamic)
  for (long work = 0; work < PLACES * out; work++) {
    const element *lines = kernel + work * length * LANES, *from = changed + work / out * stream;
    float *to = products + work / out * stream_out + work % out * tiles * LANES;
    range all = tiles_with(m, work / out);
    long left = all.to - all.from;
    for (long index = all.from; left >= ROWS; index += ROWS, left -= ROWS)
      multiply_tiles(from + index * LANES, tiles, ROWS, lines, length, to + index * LANES);
    if (left && all.to - all.from >= ROWS)
      multiply_tiles(from + (all.to - ROWS) * LANES, tiles, ROWS, lines, length, to + (all.to - ROWS) * LANES);
    else
      for (long index = all.to - left; index < all.to; index++)
        multiply_tiles(from + index * LANES, tiles, 1, lines, length, to + index * LANES);
  }
}

// Adds to `count` lines of the gradient of a changed kernel, or with `first` to nothing, the sums over `length` lines of tiles.
INLINE void add_gradient(const element *changed, long count, const element *lines, long length, int first, float *to) {
  vector sums[ROWS][PARTS] = {0};
  if (!first) load_sums(to, count, sums);
  add_products(changed, 1, count, lines, length, LANES, sums);
  store_sums(sums, count, to);
}

// Adds to the gradient of a changed kernel, places x panels of D x C x 16 with C filled up to a multiple of 16, the sums over tiles
// of the changed input, places x panels of C x tiles x 16, times the changed gradient of the output, places x panels of D x tiles
// x 16, whose elements are of tiles. With `first` there is nothing yet.
static void add_gradients(const element *changed, const element *gradient, float *of_kernel, int first, map m, long channels,
                          long channels_out, long threads) {
  enum { REST = LANES % ROWS };
  long in = panels(channels), out = panels(channels_out), lines_of_panel = (tiles_of(m) + TERMS - 1) / TERMS;
  long stream = stream_of(changed_lines(m, channels, TILES)), stream_out = stream_of(changed_lines(m, channels_out, TILES));
#pragma omp parallel for num_threads(threads) schedule(dynamic)
  for (long work = 0; work < PLACES * out; work++) {
    range all = tiles_with(m, work / out);
    if (all.from == all.to) {
      if (first) memset(of_kernel + work * in * LANES * LANES, 0, (size_t)(in * LANES * LANES) * sizeof(float));
      continue;
    }
    long begin = all.from / TERMS, length = (all.to + TERMS - 1) / TERMS - begin;
    const element *lines = gradient + work / out * stream_out + (work % out * lines_of_panel + begin) * LANES;
    const element *from = changed + work / out * stream + begin * LANES;
    for (long panel = 0; panel < in; panel++, from += lines_of_panel * LANES) {
      float *to = of_kernel + (work * in + panel) * LANES * LANES;
      for (long c = 0; c + ROWS <= LANES; c += ROWS) add_gradient(from + c, ROWS, lines, length, first, to + c * LANES);
      if (REST) add_gradient(from + LANES - REST, REST, lines, length, first, to + (LANES - REST) * LANES);
    }
  }
}

// A convolution's maps in and out, that of the output for one image.
typedef struct {
  source x;
  number *y;
  uint8_t *of_y;
  long channels_out;
  map out;
} convolution;

// A part of the maps, from the `first` image on.
INLINE source from_image(source x, long first) {
  long at = first * x.height * x.width * x.channels / (x.chosen ? 4 : 1);
  x.numbers += at;
  if (x.chosen) x.chosen += at;
  return x;
}

// `count` images from the `first` one on.
static void convolve_images(convolution m, const element *changed_kernel, element *changed, float *products, long first,
                            long count, long threads) {
  map out = m.out;
  out.images = count;
  long y = first * out.rows * out.columns * m.channels_out / (m.of_y ? 4 : 1);
  change(from_image(m.x, first), changed, out, PANELS, threads);
  multiply(changed, changed_kernel, products, out, m.x.channels, m.channels_out, threads);
  change_products_back(products, m.y + y, m.of_y ? m.of_y + y : NULL, out, m.channels_out, threads);
}

// x: N H W C, convolved by `kernel`, D C taps x taps (`turned`: by that of the gradient of the input, whose outputs are C) -> y:
// N H' W' D, H' and W' being `rows` and `columns`, in tiles of `step` pixels. The kernel is changed into `changed_kernel`. `teams`
// threads have a part of `changed` and `products` each for `at_once` images, where none waits for another or takes lines from its
// cache; 1: all threads share one, for few images. Given `of_x`, x was pooled, and it was chosen; given `of_y`, y is to be.
void winograd_convolve(const number *x, const uint8_t *of_x, const float *kernel, number *y, uint8_t *of_y, element *changed,
                       element *changed_kernel, float *products, long images, long at_once, long teams, long height, long width,
                       long channels, long rows, long columns, long step, long channels_out, long padding, long turned, long taps,
                       long threads) {
  map part = {at_once, rows, columns, taps, step};
  convolution m = {{x, of_x, height, width, channels, padding, 0}, y, of_y, channels_out, part};
  change_kernel(kernel, changed_kernel, channels_out, channels, turned ? channels_out : channels, turned, taps, step,
                threads);
  if (teams == 1) {
    for (long n = 0; n < images; n += at_once)
      convolve_images(m, changed_kernel, changed, products, n, smaller(at_once, images - n), threads);
    return;
  }
  long room = PLACES * stream_of(changed_lines(part, channels, PANELS));
  long room_out = PLACES * stream_of(panels(channels_out) * tiles_of(part));
#pragma omp parallel for num_threads(teams) schedule(dynamic)
  for (long n = 0; n < images; n += at_once) {
    long own = omp_get_thread_num();
    convolve_images(m, changed_kernel, changed + own * room, products + own * room_out, n, smaller(at_once, images - n), 1);
  }
}

// Adds to the gradient of a changed kernel the sums over images from `first` to `end`, `at_once` of them at a time.
static void add_images(source x, source gradient, map m, element *changed, element *of_output, float *total, long first, long end,
                       long at_once, long threads) {
  for (long n = first; n < end; n += at_once) {
    m.images = smaller(at_once, end - n);
    change(from_image(x, n), changed, m, TILES, threads);
    change(from_image(gradient, n), of_output, m, TILES, threads);
    add_gradients(changed, of_output, total, n == first, m, x.channels, gradient.channels, threads);
  }
}

// Adds `groups` rows of `count` numbers to the first, in their order.
static void add_up(float *rows, long groups, long count, long threads) {
#pragma omp parallel for simd num_threads(threads) schedule(static)
  for (long k = 0; k < count; k++)
    for (long group = 1; group < groups; group++) rows[k] += rows[group * count + k];
}

// The gradient of the kernel, D C taps x taps, from x: N H W C and the gradient of the output, N H' W' D, pooled where `chosen`.
// `groups` of the images have a sum each in `total`, groups x places x panels of D x C x 16 with C filled up to a multiple of 16,
// whatever the number of threads. `teams` threads take a group each, with a part of `changed` and `of_output` of their own;
// 1: all threads share each.
void winograd_kernel_gradient(const number *x, const number *gradient, const uint8_t *chosen, float *of_kernel, element *changed,
                              element *of_output, float *total, long images, long at_once, long groups, long teams, long height,
                              long width, long channels, long rows, long columns, long step, long channels_out, long padding,
                              long taps, long threads) {
  map part = {at_once, rows, columns, taps, step};
  source input = {x, NULL, height, width, channels, padding, 0}, output = {gradient, chosen, rows, columns, channels_out, 0, 1};
  long sums = PLACES * panels(channels_out) * panels(channels) * LANES * LANES;
  long room = PLACES * stream_of(changed_lines(part, channels, TILES));
  long room_out = PLACES * stream_of(changed_lines(part, channels_out, TILES));
#pragma omp parallel for num_threads(teams) schedule(dynamic) if (teams > 1)
  for (long group = 0; group < groups; group++) {
    long own = omp_get_thread_num();
    add_images(input, output, part, changed + own * room, of_output + own * room_out, total + group * sums,
               images * group / groups, images * (group + 1) / groups, at_once, threads / teams);
  }
  add_up(total, groups, sums, threads);
  change_kernel_back(total, of_kernel, channels_out, channels, taps, threads);
}

#endif
