// The gradient of a convolution's kernel in the tile registers of Intel AMX; see weight_gradient.py.
//
// It is a matrix product over pixels: for each tap, output channels x pixels times pixels x input channels, 16 by 16 of them in a
// tile. Pixels are counted through images with zeros around them (places.h), and one long sum runs through several images. Six
// sums are kept in registers at once: they share the one operand, and find most of the other in the first cache.
//
// Channels are taken 32 at a time, in the order in which the processor interleaves two vectors, and put right at the end.
// The sums do not depend on the number of threads.

#include "places.h"

#ifdef TILES

enum {
  RANGE = 4,          // blocks of output channels, and of input channels, whose sums one unit of work takes
  PLACES = 1024,      // of a chunk, if images are small: then all that a thread works on stays in its second cache
  LINE = 32,          // places: short enough that a tap finds what the one above it has loaded
  AT_ONCE = 6,        // sums in registers
  UNTIL_STORED = 8,   // steps without a store; after some 30 the next store takes 300 ns (docs/findings.md)
};

// Which channel of a block lies at a place of it, after `interleave`: the low and the high halves of each 128 bits.
static long channel_at(long place) { return place % 16 / 4 * 8 + place / 16 * 4 + place % 4; }

// Two pixels of 32 channels -> the pairs of the low halves, and of the high ones.
INLINE void interleave(__m512i first, __m512i second, __m512i *low, __m512i *high) {
  *low = _mm512_unpacklo_epi16(first, second);
  *high = _mm512_unpackhi_epi16(first, second);
}

INLINE long ranges_of(long channels) { return (blocks_of(channels) + RANGE - 1) / RANGE; }

struct range {
  long first, last;  // blocks of channels
};

INLINE struct range range_of(long number, long channels) {
  return (struct range){number * RANGE, smaller((number + 1) * RANGE, blocks_of(channels))};
}

struct scratch {
  struct layout layout;
  long line, steps, places;  // room for blocks of outputs: numbers of one line, tiles of all; for one of inputs: places
  bf16 *outputs, *turned, *pairs;
};

// Steps of 32 places that the output takes in one line of images.
INLINE long steps_of(const struct convolution *c, struct layout l) { return up_to(c->rows * l.line, BLOCK) / BLOCK; }

// Blocks of output channels -> tiles of 16 channels x 32 places, [blocks][low, high][lines of images][steps].
static void turn_outputs(const struct convolution *c, const bf16 *gradient, const uint8_t *chosen, struct layout l,
                         struct range out, const struct scratch *s) {
  long steps = steps_of(c, l), by = chosen ? 2 : 1, at = 0;
  for (long n = 0, done = 0; n < l.images; done += steps) {
    for (long first = n, end = smaller(n + l.across, l.images); n < end; n++)
      for (long i = 0; i < c->rows / by; i++)
        for (long j = 0; j < c->columns / by; j++, at += c->channels_out) {
          fetch(gradient + at + out.first * BLOCK, (out.last - out.first) * BLOCK * (long)sizeof(bf16));
          for (long d = out.first; d < out.last; d++) {
            bf16 *place = s->outputs + (d - out.first) * s->line + (by * i * l.line + (n - first) * l.stride + by * j) * BLOCK;
            put_block(gradient, chosen, at, d, c->channels_out, place, l.line);
          }
        }
    // Where the last line is not full, images of the one before are still there; their inputs are zeros.
    for (long d = 0; d < out.last - out.first; d++) {
      bf16 *places = s->outputs + d * s->line, *turned = s->turned + (2 * d * s->steps + done) * TILE;
      for (long step = 0; step < steps; step++, turned += TILE) {
        __m512i low[16], high[16];
        for (int k = 0; k < 16; k++, places += 2 * BLOCK)
          interleave(_mm512_load_si512(places), _mm512_load_si512(places + BLOCK), low + k, high + k);
        turn(low, turned);
        turn(high, turned + s->steps * TILE);
      }
    }
  }
}

INLINE void put_pair(bf16 *pairs, long place, __m512i first, __m512i second, long half) {
  __m512i low, high;
  interleave(first, second, &low, &high);
  bf16 *to = pairs + place % 2 * half + place / 2 * BLOCK;
  _mm512_store_si512(to, low);
  _mm512_store_si512(to + 2 * half, high);
}

// Blocks of input channels -> at each place, 16 channels of it in pairs with the next one: [blocks][low, high][even, odd places].
// The pairs before and after a row have zeros for what lies there.
static void pair_inputs(const struct convolution *c, const bf16 *x, struct layout l, struct range in, const struct scratch *s) {
  long half = s->places / 2 * BLOCK;
  for (long n = 0; n < l.images; n++)
    for (long i = 0; i < c->height; i++) {
      __m512i last[RANGE];
      long place = first_place(c, l) + n / l.across * l.period + i * l.line + n % l.across * l.stride;
      for (long b = 0; b < RANGE; b++) last[b] = _mm512_setzero_si512();
      for (long j = 0; j < c->width; j++, place++, x += c->channels) {
        fetch(x + in.first * BLOCK, (in.last - in.first) * BLOCK * (long)sizeof(bf16));
        for (long b = 0; b < in.last - in.first; b++) {
          __m512i next = block_of(x, in.first + b, c->channels);
          if (place) put_pair(s->pairs + 4 * b * half, place - 1, last[b], next, half);
          last[b] = next;
        }
      }
      for (long b = 0; b < in.last - in.first; b++)
        put_pair(s->pairs + 4 * b * half, place - 1, last[b], _mm512_setzero_si512(), half);
    }
}

// `count` sums of 16 x 16 floats, one after the other: what was there, unless `begin`, plus a row of tiles times each of `pairs`.
static void multiply(const bf16 *turned, const bf16 *const *pairs, float *sums, long count, long lines, long steps, long apart,
                     int begin) {
  enum { SUMS = 16 * 16 };
  const long line = BLOCK * sizeof(bf16), row = 16 * sizeof(float);
#define EACH(does) does(0) does(1) does(2) does(3) does(4) does(5)
#define ZERO(k) _tile_zero(k);
#define LOAD(k) if (k < count) _tile_loadd(k, sums + k * SUMS, row);
#define STORE(k) if (k < count) _tile_stored(k, sums + k * SUMS, row);
#define ADD(k) if (k < count) { _tile_loadd(7, pairs[k] + at, line); _tile_dpbf16ps(k, 6, 7); }
  if (begin) { EACH(ZERO) } else { EACH(LOAD) }
  for (long n = 0, done = 0; n < lines; n++)
    for (long step = 0; step < steps; step++, turned += TILE) {
      long at = n * apart + step * TILE;
      _tile_loadd(6, turned, line);
      EACH(ADD)
      if (++done % UNTIL_STORED == 0) STORE(0)
    }
  EACH(STORE)
}

// Images first to last, some output and some input channels, into sums: [blocks out][low, high][blocks in][low, high][taps], taps
// of even places first.
static void add_up(const struct convolution *c, const bf16 *x, const bf16 *gradient, const uint8_t *chosen, float *sums,
                   long first, long last, struct range out, struct range in, long chunk, long across, struct scratch *s) {
  long taps = c->side * c->side, half = s->places / 2 * BLOCK, by = chosen ? 2 : 1;
  long numbers = (c->rows / by) * (c->columns / by) * c->channels_out;  // of an image's gradient
  for (long n = first; n < last; n += chunk) {
    struct layout l = lay_out(c, smaller(chunk, last - n), across, larger(c->padding, 1));
    if (l.images != s->layout.images) {
      s->layout = l;
      memset(s->outputs, 0, (size_t)(RANGE * s->line) * sizeof(bf16));
      memset(s->pairs, 0, (size_t)(RANGE * 4 * half) * sizeof(bf16));
    }
    turn_outputs(c, gradient + n * numbers, chosen ? chosen + n * numbers : 0, l, out, s);
    pair_inputs(c, x + n * c->height * c->width * c->channels, l, in, s);
    const bf16 *pairs[RANGE * 2 * taps];
    long count = 0;
    for (long b = 0; b < 2 * (in.last - in.first); b++)
      for (long odd = 0; odd < 2; odd++)
        for (long tap = 0; tap < taps; tap++) {
          long place = tap_place(c, l, tap);
          if (place % 2 == odd) pairs[count++] = s->pairs + (2 * b + odd) * half + place / 2 * BLOCK;
        }
    __asm__ volatile("" ::: "memory");  // gcc does not know that a tile is loaded from memory: what was stored is to be there
    for (long d = 0; d < 2 * (out.last - out.first); d++)
      for (long k = 0; k < count; k += AT_ONCE)
        multiply(s->turned + d * s->steps * TILE, pairs + k, sums + (d * count + k) * 16 * 16, smaller(AT_ONCE, count - k),
                 lines_of(l), steps_of(c, l), l.period / 2 * BLOCK, n == first);
    __asm__ volatile("" ::: "memory");
  }
}

// The order of the sums of each tap: those of even places first.
static void order_taps(const struct convolution *c, struct layout l, long *order) {
  long taps = c->side * c->side, k = 0;
  for (long odd = 0; odd < 2; odd++)
    for (long tap = 0; tap < taps; tap++)
      if (tap_place(c, l, tap) % 2 == odd) order[tap] = k++;
}

// The sums of one output channel, added over the groups of images, in the kernel's own order: C S S.
static void put_kernel(const struct convolution *c, const float *sums, const long *order, long d, long groups, long of_unit,
                       float *result) {
  long taps = c->side * c->side, at = 0;
  while (channel_at(at) != d % BLOCK) at++;
  for (long b = 0; b < blocks_of(c->channels); b++) {
    struct range in = range_of(b / RANGE, c->channels);
    long unit = d / BLOCK / RANGE * ranges_of(c->channels) + b / RANGE;
    long tile = (d / BLOCK % RANGE * 2 + at / 16) * (in.last - in.first) + b % RANGE;
    for (long half = 0; half < 2; half++)
      for (long tap = 0; tap < taps; tap++) {
        const float *from = sums + unit * groups * of_unit + ((tile * 2 + half) * taps + order[tap]) * 16 * 16 + at % 16 * 16;
        float total[16] = {0};
        for (long group = 0; group < groups; group++)
          for (long q = 0; q < 16; q++) total[q] += from[group * of_unit + q];
        for (long q = 0; q < 16; q++) {
          long channel = b * BLOCK + channel_at(half * 16 + q);
          if (channel < c->channels) result[channel * taps + tap] = total[q];
        }
      }
  }
}

// x: N H W C, gradient of the output: N H' W' D, both bf16 -> that of the kernel, D C S S floats, padded by `padding`. Where
// there is `chosen`, the output was max-pooled, and its gradient is N H'/2 W'/2 D. In so many groups of images, whose sums are
// added in the end. Gives 1 where memory is missing.
long weight_gradient(const bf16 *x, const bf16 *gradient, const uint8_t *chosen, float *result, long images, long height,
                     long width, long channels, long channels_out, long side, long padding, long groups, long threads) {
  struct convolution c = {images, height, width, channels, height + 2 * padding - side + 1, width + 2 * padding - side + 1,
                          channels_out, side, padding};
  long columns = larger(padding, 1), across = larger(1, smaller((images + groups - 1) / groups, LINE / (width + columns)));
  across += lay_out(&c, 1, across, columns).period % 2;  // whole pairs from one line of images to the next
  long chunk = larger(1, PLACES / lay_out(&c, 1, across, columns).period) * across;
  struct layout most = lay_out(&c, chunk, across, columns);
  long line = steps_of(&c, most) * BLOCK * BLOCK, steps = lines_of(most) * steps_of(&c, most);
  long places = up_to(input_places(&c, most) + BLOCK, 2), ins = ranges_of(channels);
  long units = ranges_of(channels_out) * ins * groups, of_unit = RANGE * RANGE * BLOCK * BLOCK * side * side, failed = 0;
  float *sums = room(units * of_unit * (long)sizeof(float));
  if (!sums) return 1;
#pragma omp parallel num_threads(threads)
  {
    struct scratch s = {.line = line, .steps = steps, .places = places};
    s.outputs = room(RANGE * (line + 2 * steps * TILE + 2 * places * BLOCK) * (long)sizeof(bf16));
    s.turned = s.outputs + RANGE * line;
    s.pairs = s.turned + RANGE * 2 * steps * TILE;
    struct tiles before = set_up_tiles();
    if (!s.outputs) {
#pragma omp atomic write
      failed = 1;
    }
#pragma omp barrier
    if (!failed) {
#pragma omp for schedule(dynamic)
      for (long unit = 0; unit < units; unit++) {
        long group = unit % groups, part = unit / groups;
        add_up(&c, x, gradient, chosen, sums + unit * of_unit, images * group / groups, images * (group + 1) / groups,
               range_of(part / ins, channels_out), range_of(part % ins, channels), chunk, across, &s);
      }
      long order[side * side];
      order_taps(&c, most, order);
#pragma omp for schedule(static)
      for (long d = 0; d < channels_out; d++)
        put_kernel(&c, sums, order, d, groups, of_unit, result + d * channels * side * side);
    }
    leave_tiles(&before);
    free(s.outputs);
  }
  free(sums);
  return failed;
}

#endif
