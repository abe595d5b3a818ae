// Tiles of maps -> their places, which are multiplied, and products -> tiles; see winograd.c.

#ifndef CHANGES
#define CHANGES

#include "elements.h"
#include "largest.h"
#include "tiling.h"

// Elements from one place to the next: whole lines, an odd number of them, so that the places do not meet in one set of the
// cache.
INLINE long stream_of(long lines) { return (lines | 1) * LANES; }

// What was changed lies in up to 64 streams, more than a processor watches: each is told of its lines AHEAD tiles before they are
// needed. So panels are gone through one after the other, not the tiles. Of a pooled image it is told SOON tiles before.
enum { AHEAD = 4, SOON = 4 };

INLINE void prepare_lines(const void *line, long stream, int written) {
  for (long place = 0; place < PLACES; place++)
    if (written) __builtin_prefetch((const element *)line + place * stream + AHEAD * LANES, 1);
    else __builtin_prefetch((const element *)line + place * stream + AHEAD * LANES, 0);
}

// Maps that are changed: the input, or the gradient of the output, whose `padding` is 0. Height and width are those before
// pooling.
typedef struct {
  const number *numbers;
  const uint8_t *chosen;
  long height, width, channels, padding;
  int is_gradient;
} source;

// A part of the maps, from the `first` image on.
INLINE source from_image(source x, long first) {
  long at = first * x.height * x.width * x.channels / (x.chosen ? 4 : 1);
  x.numbers += at;
  if (x.chosen) x.chosen += at;
  return x;
}

// Where `down` rows from `top` on begin among the numbers of an image; OUTSIDE beyond its edges. Two rows were pooled into one.
enum { OUTSIDE = -1 };

INLINE void find_rows(source x, long top, long down, long rows[REACH]) {
  long row = (x.chosen ? x.width / 2 : x.width) * x.channels;
#pragma GCC unroll 8
  for (long i = 0; i < down; i++) {
    long at = x.chosen ? (top + i) / 2 : top + i;
    rows[i] = top + i >= 0 && top + i < x.height ? at * row : OUTSIDE;
  }
}

// Their pixels in a column, WIDTH channels from `first`; zeros beyond edges and channels. Of a pooled image each number stands
// where it was chosen, among zeros.
INLINE void read_column(source x, const long rows[REACH], long top, long down, long column, long first, vector pixels[REACH]) {
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

// One panel of a tile, taken as `high` x `wide`: the pixels it depends on -> places down, pixels across. What is not read of
// `pixels` is not set: zeros there would cost a third of the time.
INLINE void change_down(source maps, tile t, long high, long wide, long panel, long taps, lanes *half) {
  source x = from_image(maps, t.image);
  long top = t.top - x.padding, left = t.left - x.padding, more = x.is_gradient ? 0 : taps - 1;
  within(high + more, 1, REACH), within(wide + more, 1, REACH);
  long rows[REACH];
  find_rows(x, top, high + more, rows);
  for (long j = 0; j < wide + more; j++)
    for (long c = 0; c < LANES; c += WIDTH) {
      vector pixels[REACH];
      read_column(x, rows, top, high + more, left + j, panel * LANES + c, pixels);
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

// Tells the processor of the numbers that a tile of a pooled image depends on, those of a panel and, in bf16, often of the next
// one in the same line of the cache, and of where they were chosen: two streams whose next lines it does not foresee, as it does
// those of other images.
INLINE void prepare_chosen(source maps, tile t, long taps, long panel) {
  source x = from_image(maps, t.image);
  long more = x.is_gradient ? 0 : taps - 1, top = t.top - x.padding, left = t.left - x.padding;
  long bottom = smaller(top + t.high + more, x.height), right = smaller(left + t.wide + more, x.width);
  for (long i = larger(top, 0) / 2; i * 2 < bottom; i++)
    for (long j = larger(left, 0) / 2; j * 2 < right; j++) {
      long at = (i * (x.width / 2) + j) * x.channels + panel * LANES;
      __builtin_prefetch(x.numbers + at), __builtin_prefetch(x.chosen + at);
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

// A line of elements. Of two tiles that follow each other the larger holds the smaller, which is changed as if it were as large,
// with zeros for the gradients beyond the map: it adds the same to the sums.
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
  long per_line = of == TILES ? TERMS : 1, lines = (tiles_of(m) + per_line - 1) / per_line;
  long all = changed_lines(m, x.channels, of);
#pragma omp parallel for num_threads(threads) schedule(static)
  for (long work = 0; work < all; work++) {
    long panel = work / lines * (of == PANELS ? TERMS : 1), index = work % lines * per_line;
    for (long k = 0; k < per_line; k++)
      if (x.chosen && index + SOON + k < tiles_of(m)) prepare_chosen(x, tile_at(m, index + SOON + k), m.taps, panel);
    prepare_lines(to + work * LANES, stream_of(all), 1);
    change_line(x, m, panel, index, of, to + work * LANES, stream_of(all));
  }
}

// `count` of LANES channels to a map; all of them, as in most panels, in vectors.
INLINE void write_lanes(number *to, const float *from, long count) {
  if (count == LANES)
    for (long c = 0; c < LANES; c += WIDTH) store_numbers(to + c, load(from + c));
  else
    for (long c = 0; c < count; c++) to[c] = narrow(from[c]);
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
        for (long c = 0; c < LANES; c += WIDTH) {
          vector below = load(four[REACH] + c), right_below = load(four[REACH + 1] + c);
          store(best + c, largest_of(load(four[0] + c), load(four[1] + c), below, right_below, at + c));
        }
        write_lanes(pixels + to, best, count);
        memcpy(chosen + to, at, (size_t)count);
      }
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

#endif
