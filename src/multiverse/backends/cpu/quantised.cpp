// Linear layers whose weights have 8 or 4 bits, times rows whose numbers are rounded to 8 bits first, block by block.
//
// Weights are codes without a sign in blocks along their inputs: weight = scale * (code - zero), where zero is half the range of
// codes, or weight = scale * code + minimum where blocks have minimums (Q4_1, Q4_K, Q5_K of GGUF). Rows become codes from -127
// to 127 and one scale in each 32 numbers. Products of codes are summed exactly, as integers; those sums, times both scales, are
// summed as floats, block after block. So a row's result depends on neither the number of rows nor the number of threads.
//
// Sixteen outputs stand side by side: `codes` is [N / 16][K / 32][8][16][4], in 4 bits [N / 16][K / 32][4][16][4] bytes whose low
// halves are the first 16 inputs of a block and whose high halves the others; `scales` and `mins` are half precision,
// [N / 16][K / block][16]. An instruction (vpdpbusd) then multiplies four inputs of sixteen outputs, and nothing has to be
// summed across lanes. N is padded to a multiple of 16 and K to one of 32.
//
// Without AVX-512 and VNNI the same is computed by plain loops. Compiled and called as kernels.cpp is.
//
// Letters: M rows, K inputs (padded), N outputs, B blocks of 32 inputs.

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__) && defined(__AVX512VNNI__)
#include <immintrin.h>
#define VECTORS 1
#endif

extern "C" {
int omp_get_thread_num(void);
int omp_get_num_threads(void);
}

namespace {

typedef uint16_t bf16;
typedef uint16_t half;

struct Product {
    const void *x, *bias, *residual;  // [M][inputs], [N] or null, [M][N] or null; bfloat16 or float
    void* y;                          // [M][N], of the same type; with a gate [M][N / 2]
    const uint8_t* codes;
    const half *scales, *mins;        // mins: or null
    long M, inputs, N, bits, block;   // block: 32 or 16 inputs
    long stride;                      // numbers from one row of y, and of the residual, to the next
    long gated;                       // y = silu(first half of the outputs) * second half
    long floats;                      // whether x, bias, residual and y are float

    long B() const { return (inputs + 31) / 32; }
    long groups() const { return (N + 15) / 16; }
    int zero() const { return bits == 8 ? 128 : 8; }
};

// Rows in codes. All are [B][M]...: a block of all rows stands together.
struct Rows {
    int8_t* codes;       // [32]
    float* scale;
    int32_t* correction; // [2]: -zero times the sum of the codes: of 32 (the first), or of 16 and 16
    float* sum;          // [2]: of the numbers that the codes stand for, likewise
    char* memory;

    explicit Rows(const Product& a) {
        const long count = a.B() * a.M;
        memory = (char*)aligned_alloc(64, (count * 56 + 63) / 64 * 64);
        codes = (int8_t*)memory;
        correction = (int32_t*)(memory + count * 32);
        sum = (float*)(memory + count * 40);
        scale = (float*)(memory + count * 48);
    }
    ~Rows() { free(memory); }
};

#ifdef VECTORS
typedef __m512 Floats;

inline __m512 zeros() { return _mm512_setzero_ps(); }

inline __mmask16 first(long count) { return count >= 16 ? 0xffff : (1u << count) - 1; }

inline __m512 load(const void* p, long i, __mmask16 mask, long floats) {
    if (floats) return _mm512_maskz_loadu_ps(mask, (const float*)p + i);
    __m256i v = _mm256_maskz_loadu_epi16(mask, (const bf16*)p + i);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(v), 16));
}

inline __m256i to_bf16(__m512 v) {
    __m512i bits = _mm512_castps_si512(v);
    __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    __m512i up = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
    __mmask16 nan = _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q);
    return _mm512_cvtepi32_epi16(_mm512_srli_epi32(_mm512_mask_or_epi32(up, nan, bits, _mm512_set1_epi32(0x400000)), 16));
}

inline __m512 as_bf16(__m512 v) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(to_bf16(v)), 16)); }

inline void store(void* p, long i, __mmask16 mask, __m512 v, long floats) {
    if (floats) _mm512_mask_storeu_ps((float*)p + i, mask, v);
    else _mm256_mask_storeu_epi16((bf16*)p + i, mask, to_bf16(v));
}

inline __m512 halves(const half* p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)p)); }

// e^x for x <= 0, to about one unit in the last place.
inline __m512 exp16(__m512 x) {
    x = _mm512_max_ps(x, _mm512_set1_ps(-87.0f));
    __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(1.44269504f)), 0);
    __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693359375f), x);
    r = _mm512_fnmadd_ps(n, _mm512_set1_ps(-2.12194440e-4f), r);
    __m512 p = _mm512_set1_ps(1.0f / 720);
    const float terms[] = {1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f, 1.0f, 1.0f};
    for (float c : terms) p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(c));
    return _mm512_scalef_ps(p, n);
}

void quantise_block(const Product& a, const Rows& rows, long m, long b) {
    const long at = b * a.M + m, from = b * 32, left = a.inputs - from;
    const __mmask16 low = first(left), high = left > 16 ? first(left - 16) : 0;
    const __m512 v[2] = {load(a.x, m * a.inputs + from, low, a.floats), load(a.x, m * a.inputs + from + 16, high, a.floats)};
    const __m512 size = _mm512_max_ps(_mm512_abs_ps(v[0]), _mm512_abs_ps(v[1]));
    const float most = _mm512_reduce_max_ps(size);
    const float scale = _mm512_cmp_ps_mask(v[0], v[1], _CMP_UNORD_Q) ? NAN : most / 127.0f;
    const __m512 by = _mm512_set1_ps(most > 0 ? 127.0f / most : 0.0f);
    int sums[2];
    for (int h = 0; h < 2; h++) {
        const __m512i code = _mm512_cvtps_epi32(_mm512_mul_ps(v[h], by));
        _mm_storeu_si128((__m128i*)(rows.codes + at * 32 + h * 16), _mm512_cvtsepi32_epi8(code));
        sums[h] = _mm512_reduce_add_epi32(code);
    }
    if (a.block == 32) sums[0] += sums[1];
    for (int h = 0; h < 2; h++) {
        rows.correction[at * 2 + h] = -a.zero() * sums[h];
        rows.sum[at * 2 + h] = scale * float(sums[h]);
    }
    rows.scale[at] = scale;
}

template <int BITS>
inline void read_codes(const uint8_t* p, __m512i w[8]) {
    if (BITS == 8)
        for (int i = 0; i < 8; i++) w[i] = _mm512_loadu_si512(p + i * 64);
    else
        for (int i = 0; i < 4; i++) {
            const __m512i both = _mm512_loadu_si512(p + i * 64), mask = _mm512_set1_epi8(15);
            w[i] = _mm512_and_si512(both, mask);
            w[i + 4] = _mm512_and_si512(_mm512_srli_epi16(both, 4), mask);
        }
}

// Sixteen outputs from group g for C rows from m.
template <int BITS, int BLOCK, bool MINS, int C>
void outputs(const Product& a, const Rows& rows, long g, long m, __m512* out) {
    const int parts = 32 / BLOCK, quads = 8 / parts;
    const long B = a.B();
    const uint8_t* codes = a.codes + g * B * BITS * 64;
    const half *scales = a.scales + g * B * parts * 16, *mins = MINS ? a.mins + g * B * parts * 16 : nullptr;
    __m512 sum[C];
    for (int c = 0; c < C; c++) sum[c] = zeros();
    for (long b = 0; b < B; b++, codes += BITS * 64) {
        __m512i w[8];
        read_codes<BITS>(codes, w);
        const long at = b * a.M + m;
        const int32_t* x = (const int32_t*)(rows.codes + at * 32);
        for (int p = 0; p < parts; p++) {
            const __m512 scale = halves(scales + (b * parts + p) * 16);
            const __m512 least = MINS ? halves(mins + (b * parts + p) * 16) : zeros();
            for (int c = 0; c < C; c++) {
                __m512i dot = MINS ? _mm512_setzero_si512() : _mm512_set1_epi32(rows.correction[(at + c) * 2 + p]);
                for (int i = p * quads; i < (p + 1) * quads; i++)
                    dot = _mm512_dpbusd_epi32(dot, w[i], _mm512_set1_epi32(x[c * 8 + i]));
                const __m512 by = _mm512_mul_ps(scale, _mm512_set1_ps(rows.scale[at + c]));
                sum[c] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot), by, sum[c]);
                if (MINS) sum[c] = _mm512_fmadd_ps(least, _mm512_set1_ps(rows.sum[(at + c) * 2 + p]), sum[c]);
            }
        }
    }
    for (int c = 0; c < C; c++) out[c] = sum[c];
}

template <int BITS, int BLOCK, bool MINS>
void all_outputs(const Product& a, const Rows& rows, long g, __m512* out) {
    long m = 0;
    for (; m + 8 <= a.M; m += 8) outputs<BITS, BLOCK, MINS, 8>(a, rows, g, m, out + m);
    if (m + 4 <= a.M) { outputs<BITS, BLOCK, MINS, 4>(a, rows, g, m, out + m); m += 4; }
    if (m + 2 <= a.M) { outputs<BITS, BLOCK, MINS, 2>(a, rows, g, m, out + m); m += 2; }
    if (m < a.M) outputs<BITS, BLOCK, MINS, 1>(a, rows, g, m, out + m);
}

inline __m512 add_bias(const Product& a, long g, __m512 v) {
    const __mmask16 mask = first(a.N - g * 16);
    v = a.bias ? _mm512_add_ps(v, load(a.bias, g * 16, mask, a.floats)) : v;
    return a.floats ? v : as_bf16(v);  // rounded where a layer of its own would round
}

void write(const Product& a, long g, const __m512* out) {
    const __mmask16 mask = first(a.N - g * 16);
    for (long m = 0; m < a.M; m++) {
        __m512 v = add_bias(a, g, out[m]);
        if (a.residual) v = _mm512_add_ps(v, load(a.residual, m * a.stride + g * 16, mask, a.floats));
        store(a.y, m * a.stride + g * 16, mask, v, a.floats);
    }
}

void write_gated(const Product& a, long g, const __m512* gate, const __m512* up) {
    const __m512 one = _mm512_set1_ps(1.0f);
    for (long m = 0; m < a.M; m++) {
        __m512 v = add_bias(a, g, gate[m]), by = add_bias(a, g + a.groups() / 2, up[m]);
        // x / (1 + e^-x), with the exponential of a non-positive number for either sign of x.
        const __m512 small = exp16(_mm512_sub_ps(zeros(), _mm512_abs_ps(v)));
        const __m512 part = _mm512_mask_mov_ps(one, _mm512_cmp_ps_mask(v, zeros(), _CMP_LT_OQ), small);
        v = _mm512_div_ps(_mm512_mul_ps(v, part), _mm512_add_ps(one, small));
        store(a.y, m * a.stride + g * 16, 0xffff, _mm512_mul_ps(a.floats ? v : as_bf16(v), by), a.floats);
    }
}

#else
struct Floats { float lane[16]; };

inline float widen(bf16 v) {
    union { uint32_t u; float f; } bits = {uint32_t(v) << 16};
    return bits.f;
}

inline bf16 narrow(float v) {
    union { float f; uint32_t u; } bits = {v};
    if (v != v) return bits.u >> 16 | 64;
    return (bits.u + 0x7fff + (bits.u >> 16 & 1)) >> 16;
}

inline float read(const void* p, long i, long floats) { return floats ? ((const float*)p)[i] : widen(((const bf16*)p)[i]); }

// The numbers of a block of one row; beyond the row's end they are zero.
inline void read_block(const Product& a, long m, long b, float* out) {
    const long from = b * 32, count = a.inputs - from < 32 ? a.inputs - from : 32;
    for (long i = 0; i < count; i++) out[i] = read(a.x, m * a.inputs + from + i, a.floats);
    for (long i = count; i < 32; i++) out[i] = 0.0f;
}

void finish_block(const Product& a, const Rows& rows, long at, float scale) {
    int sums[2] = {0, 0};
    for (int i = 0; i < 32; i++) sums[i / 16] += rows.codes[at * 32 + i];
    if (a.block == 32) sums[0] += sums[1];
    for (int h = 0; h < 2; h++) {
        rows.correction[at * 2 + h] = -a.zero() * sums[h];
        rows.sum[at * 2 + h] = scale * float(sums[h]);
    }
    rows.scale[at] = scale;
}

inline float unhalf(half v) {
    const uint32_t sign = uint32_t(v & 0x8000) << 16, exponent = v >> 10 & 31, rest = v & 1023;
    if (exponent == 0) return (sign ? -1.0f : 1.0f) * ldexpf(float(rest), -24);
    union { uint32_t u; float f; } bits = {sign | (exponent == 31 ? 255u : exponent + 112) << 23 | rest << 13};
    return bits.f;
}

void quantise_block(const Product& a, const Rows& rows, long m, long b) {
    const long at = b * a.M + m;
    float v[32], most = 0.0f;
    bool nan = false;
    read_block(a, m, b, v);
    for (float one : v) {
        nan = nan || one != one;
        most = fmaxf(most, fabsf(one));
    }
    const float by = most > 0 ? 127.0f / most : 0.0f;
    for (int i = 0; i < 32; i++) rows.codes[at * 32 + i] = nan ? 0 : (int8_t)lrintf(v[i] * by);
    finish_block(a, rows, at, nan ? NAN : most / 127.0f);
}

inline int code(const uint8_t* p, int bits, int i, int r) {
    if (bits == 8) return p[i / 4 * 64 + r * 4 + i % 4];
    const int both = p[i % 16 / 4 * 64 + r * 4 + i % 4];
    return i < 16 ? both & 15 : both >> 4;
}

template <int BITS, int BLOCK, bool MINS>
void all_outputs(const Product& a, const Rows& rows, long g, Floats* out) {
    const int parts = 32 / BLOCK;
    const long B = a.B();
    for (long m = 0; m < a.M; m++) out[m] = Floats{};
    for (long b = 0; b < B; b++) {
        int16_t w[32][16];
        const uint8_t* codes = a.codes + (g * B + b) * BITS * 64;
        for (int i = 0; i < 32; i++)
            for (int r = 0; r < 16; r++) w[i][r] = code(codes, BITS, i, r);
        for (int p = 0; p < parts; p++) {
            float scale[16], least[16];
            for (int r = 0; r < 16; r++) {
                scale[r] = unhalf(a.scales[((g * B + b) * parts + p) * 16 + r]);
                least[r] = MINS ? unhalf(a.mins[((g * B + b) * parts + p) * 16 + r]) : 0.0f;
            }
            for (long m = 0; m < a.M; m++) {
                const long at = b * a.M + m;
                int32_t dot[16];
                for (int r = 0; r < 16; r++) dot[r] = MINS ? 0 : rows.correction[at * 2 + p];
                for (int i = p * BLOCK; i < (p + 1) * BLOCK; i++)
                    for (int r = 0; r < 16; r++) dot[r] += w[i][r] * rows.codes[at * 32 + i];
                for (int r = 0; r < 16; r++) {
                    out[m].lane[r] += float(dot[r]) * (scale[r] * rows.scale[at]);
                    if (MINS) out[m].lane[r] += least[r] * rows.sum[at * 2 + p];
                }
            }
        }
    }
}

inline float rounded(const Product& a, float v) { return a.floats ? v : widen(narrow(v)); }

inline void put(const Product& a, long i, float v) {
    if (a.floats) ((float*)a.y)[i] = v;
    else ((bf16*)a.y)[i] = narrow(v);
}

inline float with_bias(const Product& a, long n, float v) { return rounded(a, a.bias ? v + read(a.bias, n, a.floats) : v); }

void write(const Product& a, long g, const Floats* out) {
    for (long m = 0; m < a.M; m++)
        for (long n = g * 16; n < g * 16 + 16 && n < a.N; n++) {
            const float v = with_bias(a, n, out[m].lane[n % 16]);
            put(a, m * a.stride + n, a.residual ? v + read(a.residual, m * a.stride + n, a.floats) : v);
        }
}

void write_gated(const Product& a, long g, const Floats* gate, const Floats* up) {
    for (long m = 0; m < a.M; m++)
        for (int r = 0; r < 16; r++) {
            const float v = with_bias(a, g * 16 + r, gate[m].lane[r]), by = with_bias(a, a.N / 2 + g * 16 + r, up[m].lane[r]);
            put(a, m * a.stride + g * 16 + r, rounded(a, v / (1.0f + expf(-v))) * by);
        }
}
#endif

void outputs_of(const Product& a, const Rows& rows, long g, Floats* out) {
    const bool mins = a.mins != nullptr;
    if (a.bits == 8 && a.block == 32) mins ? all_outputs<8, 32, true>(a, rows, g, out) : all_outputs<8, 32, false>(a, rows, g, out);
    else if (a.bits == 8) mins ? all_outputs<8, 16, true>(a, rows, g, out) : all_outputs<8, 16, false>(a, rows, g, out);
    else if (a.block == 32) mins ? all_outputs<4, 32, true>(a, rows, g, out) : all_outputs<4, 32, false>(a, rows, g, out);
    else mins ? all_outputs<4, 16, true>(a, rows, g, out) : all_outputs<4, 16, false>(a, rows, g, out);
}

#ifdef VECTORS
// Transposes 16 by 16.
inline void transpose(__m512i v[16]) {
    __m512i t[16];
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_epi32(v[i], v[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(v[i], v[i + 1]);
    }
    for (int i = 0; i < 16; i += 4)
        for (int j = 0; j < 2; j++) {
            v[i + 2 * j] = _mm512_unpacklo_epi64(t[i + j], t[i + j + 2]);
            v[i + 2 * j + 1] = _mm512_unpackhi_epi64(t[i + j], t[i + j + 2]);
        }
    for (int j = 0; j < 4; j++) {
        __m512i even = _mm512_shuffle_i32x4(v[j], v[4 + j], 0x88), odd = _mm512_shuffle_i32x4(v[j], v[4 + j], 0xdd);
        __m512i even8 = _mm512_shuffle_i32x4(v[8 + j], v[12 + j], 0x88), odd8 = _mm512_shuffle_i32x4(v[8 + j], v[12 + j], 0xdd);
        t[j] = _mm512_shuffle_i32x4(even, even8, 0x88);
        t[4 + j] = _mm512_shuffle_i32x4(odd, odd8, 0x88);
        t[8 + j] = _mm512_shuffle_i32x4(even, even8, 0xdd);
        t[12 + j] = _mm512_shuffle_i32x4(odd, odd8, 0xdd);
    }
    for (int i = 0; i < 16; i++) v[i] = t[i];
}
#endif

// The numbers that the codes of group g stand for: up to sixteen rows of `inputs`, from y on.
void numbers(const Product& a, long g, long rows) {
    const long B = a.B(), parts = 32 / a.block, size = a.bits * 64;
    for (long b = 0; b < B; b += 2) {
        alignas(64) uint8_t codes[16][64];
        alignas(64) float scale[4][16], least[4][16];  // of each 16 inputs
        const long blocks = b + 1 < B ? 2 : 1;
        const uint8_t* from = a.codes + (g * B + b) * size;
        const long at = (g * B + b) * parts * 16;
#ifdef VECTORS
        __m512i v[16];
        for (int i = 0; i < 2; i++)
            if (i >= blocks) for (int q = 0; q < 8; q++) v[i * 8 + q] = _mm512_setzero_si512();
            else if (a.bits == 8) read_codes<8>(from + i * size, v + i * 8);
            else read_codes<4>(from + i * size, v + i * 8);
        transpose(v);
        for (int r = 0; r < 16; r++) _mm512_store_si512(codes[r], v[r]);
        for (int h = 0; h < blocks * 2; h++) {
            const long part = at + (parts == 2 ? h : h / 2) * 16;
            _mm512_store_ps(scale[h], halves(a.scales + part));
            _mm512_store_ps(least[h], a.mins ? halves(a.mins + part) : _mm512_mul_ps(_mm512_set1_ps(-a.zero()), halves(a.scales + part)));
        }
#else
        for (long i = 0; i < blocks * 32; i++)
            for (int r = 0; r < 16; r++) codes[r][i] = code(from + i / 32 * size, a.bits, i % 32, r);
        for (int h = 0; h < blocks * 2; h++)
            for (int r = 0; r < 16; r++) {
                const long part = at + (parts == 2 ? h : h / 2) * 16 + r;
                scale[h][r] = unhalf(a.scales[part]);
                least[h][r] = a.mins ? unhalf(a.mins[part]) : -a.zero() * scale[h][r];
            }
#endif
        for (long r = 0; r < rows; r++)
            for (long h = 0; h < blocks * 2; h++) {
                const long k = b * 32 + h * 16, left = a.inputs - k < 16 ? a.inputs - k : 16;
                const long out = (g * 16 + r) * a.inputs + k;
#ifdef VECTORS
                if (left <= 0) continue;
                const __m512 v = _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_load_si128((const __m128i*)(codes[r] + h * 16))));
                store(a.y, out, first(left), _mm512_fmadd_ps(v, _mm512_set1_ps(scale[h][r]), _mm512_set1_ps(least[h][r])), a.floats);
#else
                for (long i = 0; i < left; i++) {
                    const float v = float(codes[r][h * 16 + i]) * scale[h][r] + least[h][r];
                    if (a.floats) ((float*)a.y)[out + i] = v;
                    else ((bf16*)a.y)[out + i] = narrow(v);
                }
#endif
            }
    }
}

}  // namespace

extern "C" {

// y [N][inputs] = the numbers that the codes stand for.
void multiverse_dequantise(const Product* product) {
    const Product& a = *product;
#pragma omp parallel for
    for (long g = 0; g < a.groups(); g++) numbers(a, g, a.N - g * 16 < 16 ? a.N - g * 16 : 16);
}

// y = x w^T + bias, rounded, + residual; with a gate see `Product`. N / 2 is a multiple of 16 with a gate.
void multiverse_quantised(const Product* product) {
    const Product& a = *product;
    const Rows rows(a);
    const long groups = a.gated ? a.groups() / 2 : a.groups();
#pragma omp parallel
    {
#pragma omp for
        for (long i = 0; i < a.B() * a.M; i++) quantise_block(a, rows, i % a.M, i / a.M);
        Floats* out = (Floats*)aligned_alloc(64, 2 * a.M * sizeof(Floats));
        const long me = omp_get_thread_num(), all = omp_get_num_threads();
        for (long g = groups * me / all; g < groups * (me + 1) / all; g++) {
            outputs_of(a, rows, g, out);
            if (a.gated) {
                outputs_of(a, rows, g + groups, out + a.M);
                write_gated(a, g, out, out + a.M);
            } else write(a, g, out);
        }
        free(out);
    }
}

}  // extern "C"
