// The numbers that maps and matrices hold: bfloat16, the upper half of a float, or where FLOAT is defined float itself.

#ifndef NUMBER
#define NUMBER

#include <stdint.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))

INLINE long smaller(long a, long b) { return a < b ? a : b; }

INLINE long larger(long a, long b) { return a > b ? a : b; }

INLINE long up_to(long number, long step) { return (number + step - 1) / step * step; }

INLINE uint32_t bits_of(float value) {
  uint32_t bits;
  memcpy(&bits, &value, 4);
  return bits;
}

INLINE float of_bits(uint32_t bits) {
  float value;
  memcpy(&value, &bits, 4);
  return value;
}

#ifdef FLOAT

typedef float number;

INLINE float wide(number value) { return value; }

INLINE number narrow(float value) { return value; }

#else

typedef uint16_t bf16;
typedef bf16 number;

INLINE float wide(number value) { return of_bits((uint32_t)value << 16); }

INLINE number narrow(float value) {  // to the nearest, ties to even; a NaN stays one
  uint32_t bits = bits_of(value), rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  return (number)((bits & 0x7fffffff) > 0x7f800000 ? 0x7fc0 : rounded);
}

#endif

// Into the caches, what a loop over a map reads or writes next: so many bytes, DISTANCE beyond where it is now, perhaps beyond
// the map's end, which does no harm. Beside much arithmetic the processor does not look that far ahead by itself
// (docs/findings.md).
enum { DISTANCE = 2048, CACHE_LINE = 64 };  // bytes

INLINE void fetch(const void *from, long bytes) {
  const char *at = (const char *)from + DISTANCE;
  for (long k = 0; k < bytes; k += CACHE_LINE) __builtin_prefetch(at + k, 0, 2);
}

INLINE void fetch_to_write(const void *to, long bytes) {
  const char *at = (const char *)to + DISTANCE;
  for (long k = 0; k < bytes; k += CACHE_LINE) __builtin_prefetch(at + k, 1, 2);
}

#endif
