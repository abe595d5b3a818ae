// As many floats as the processor adds and multiplies at once.

#ifndef VECTOR
#define VECTOR

#include "number.h"

#ifdef __AVX512F__
enum { WIDTH = 16 };
#else
enum { WIDTH = 8 };
#endif

typedef float vector __attribute__((vector_size(WIDTH * sizeof(float)), aligned(4)));

INLINE vector load(const float *from) { return *(const vector *)from; }
INLINE void store(float *to, vector value) { *(vector *)to = value; }

// As many numbers of a map.
#ifdef FLOAT
INLINE vector load_numbers(const number *from) { return load(from); }
INLINE void store_numbers(number *to, vector value) { store(to, value); }
#else
typedef uint32_t bits_vector __attribute__((vector_size(WIDTH * sizeof(uint32_t))));
typedef number numbers __attribute__((vector_size(WIDTH * sizeof(number)), aligned(2)));

INLINE vector load_numbers(const number *from) {
  return (vector)(__builtin_convertvector(*(const numbers *)from, bits_vector) << 16);
}

INLINE void store_numbers(number *to, vector value) {  // as `narrow` rounds
  bits_vector bits = (bits_vector)value, rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  bits_vector is_nan = (bits_vector)((bits & 0x7fffffff) > 0x7f800000);
  *(numbers *)to = __builtin_convertvector((rounded & ~is_nan) | (is_nan & 0x7fc0), numbers);
}
#endif

// gcc would read a line again for every product, and reading, not multiplying, would set the pace.
#ifdef __AVX__
#define IN_REGISTER(value) __asm__("" : "+x"(value))
#else
#define IN_REGISTER(value)
#endif

#endif
