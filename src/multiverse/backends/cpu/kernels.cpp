// Decoding on a CPU is bound by memory bandwidth for weights and keys. These kernels read both in their existing layout, once
// per step for any number of rows (up to a few dozen), as sequential streams, which hardware prefetchers follow.
//
// Compiled on first use for this machine (see build.py), called through ctypes: plain C interface, no torch headers.
// OpenMP is not linked: its symbols come from torch's copy, so both share one pool of threads.
//
// All arrays are bfloat16 unless said otherwise; sums are float. Every output element is summed in an order that depends on
// the row and the weights only, never on how many rows or threads there are. Attention depends on where in a group's list of
// slots a row's own stand; `multiverse_attend_tiles` reads lists that do not depend on the batch.
//
// Letters: M rows, K inputs, N outputs.

#include <immintrin.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#ifdef __AMX_BF16__
#include <sys/syscall.h>
#include <unistd.h>
#endif

#if !defined(__AVX512F__) || !defined(__AVX512BW__) || !defined(__AVX512VL__) || !defined(__AVX512BF16__)
#error "needs AVX-512 with bfloat16"
#endif

extern "C" {
int omp_get_thread_num(void);
int omp_get_num_threads(void);
}

namespace {

typedef uint16_t bf16;

inline float widen(bf16 v) {
    union { uint32_t u; float f; } bits = {uint32_t(v) << 16};
    return bits.f;
}

inline __m512 widen16(__m256i v) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(v), 16)); }
inline __m512 load16(const bf16* p) { return widen16(_mm256_loadu_si256((const __m256i*)p)); }
inline __m512 load16(const bf16* p, __mmask16 mask) { return widen16(_mm256_maskz_loadu_epi16(mask, p)); }
inline __m512 load16(const float* p, __mmask16 mask) { return _mm512_maskz_loadu_ps(mask, p); }
inline __m256i narrow16(__m512 v) { return (__m256i)_mm512_cvtneps_pbh(v); }
inline __m512bh pairs(__m512i v) { return (__m512bh)v; }

inline bf16 narrow(float v) { return _mm_extract_epi16((__m128i)_mm_cvtneps_pbh(_mm_set_ss(v)), 0); }

// The first `count` lanes; `count` is not negative.
inline __mmask16 first(long count) { return count >= 16 ? 0xffff : (1u << count) - 1; }

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

// This thread's share of `count` blocks.
struct Share {
    long from, to;
    explicit Share(long count) {
        long me = omp_get_thread_num(), all = omp_get_num_threads();
        from = count * me / all;
        to = count * (me + 1) / all;
    }
};

struct Linear {
    const bf16 *x, *w, *bias;  // [M][K], [N][K], [N] or null
    bf16* y;                   // [M][N]
    long M, K, N;
    float bias_of(long n) const { return bias ? widen(bias[n]) : 0.0f; }
};

struct Rotate {
    const bf16 *qkv, *cos, *sin, *query_norm, *key_norm;  // [N][H + 2 KV][D], [N][D], [N][D], [D] or null, [D] or null
    const int64_t* slot;                                  // [N]
    bf16 *query, *key, *value;                            // [N][H][D], [S][KV][D], [S][KV][D]
    long N, H, KV, D;
    float epsilon;
};

inline __m512 rounded(__m512 v) { return widen16(narrow16(v)); }

// ---- vdpbf16ps: R weight rows against C rows of x, one accumulator for each pair ----

const long AHEAD = 2048;  // bytes of each weight row asked for in advance; without AMX, of several rows those that come next

template <int R, int C>
void dots(const Linear& a, long n, long m) {
    __m512 sum[R][C];
    for (int r = 0; r < R; r++)
        for (int c = 0; c < C; c++) sum[r][c] = _mm512_setzero_ps();
    const bf16 *w = a.w + n * a.K, *x = a.x + m * a.K;
#ifdef __AMX_BF16__
    const long ahead = AHEAD;
#else
    const long ahead = R == 1 ? AHEAD : R * a.K * (long)sizeof(bf16);
#endif
    long k = 0;
    for (; k + 32 <= a.K; k += 32) {
        __m512bh weight[R];
        for (int r = 0; r < R; r++) {
            weight[r] = pairs(_mm512_loadu_si512(w + r * a.K + k));
            _mm_prefetch((const char*)(w + r * a.K + k) + ahead, _MM_HINT_T0);
        }
        for (int c = 0; c < C; c++) {
            __m512bh in = pairs(_mm512_loadu_si512(x + c * a.K + k));
            for (int r = 0; r < R; r++) sum[r][c] = _mm512_dpbf16_ps(sum[r][c], weight[r], in);
        }
    }
    if (k < a.K) {
        __mmask32 mask = (1u << (a.K - k)) - 1;
        for (int c = 0; c < C; c++) {
            __m512bh in = pairs(_mm512_maskz_loadu_epi16(mask, x + c * a.K + k));
            for (int r = 0; r < R; r++)
                sum[r][c] = _mm512_dpbf16_ps(sum[r][c], pairs(_mm512_maskz_loadu_epi16(mask, w + r * a.K + k)), in);
        }
    }
    for (int r = 0; r < R; r++)
        for (int c = 0; c < C; c++)
            a.y[(m + c) * a.N + n + r] = narrow(_mm512_reduce_add_ps(sum[r][c]) + a.bias_of(n + r));
}

template <int R>
void dots_all_rows(const Linear& a, long n) {
    const int most = R >= 4 ? 4 : 8;
    long m = 0;
    for (; m + most <= a.M; m += most) dots<R, most>(a, n, m);
    for (; m + 2 <= a.M; m += 2) dots<R, 2>(a, n, m);
    if (m < a.M) dots<R, 1>(a, n, m);
}

#ifndef __AMX_BF16__
const long BLOCK_BYTES = 16384;  // of x at a time: half of the nearest cache
const int PIECES_AHEAD = 2;

// Up to 16 weight rows from n against C long rows of x from m: in blocks, so that a block of x stays in the cache for all of them.
// The products of a pair are summed in the same order as above.
template <int C>
void dots_in_blocks(const Linear& a, long n, long count, long m) {
    alignas(64) __m512 sum[16 * C];
    const bf16 *w = a.w + n * a.K, *x = a.x + m * a.K;
    const long block = BLOCK_BYTES / (2 * C);
    for (long from = 0; from < a.K; from += block) {
        const long to = from + block < a.K ? from + block : a.K;
        for (long r = 0; r < count; r++) {
            __m512 own[C];
            for (int c = 0; c < C; c++) own[c] = from ? sum[r * C + c] : _mm512_setzero_ps();
            const bf16* row = w + r * a.K;
            // Prefetch: a few weight rows ahead, or the next block of the first ones.
            const bf16* ahead = row + PIECES_AHEAD * a.K;
            if (r + PIECES_AHEAD >= count && to < a.K) ahead += to - from - count * a.K;
            long k = from;
            for (; k + 32 <= to; k += 32) {
                __m512bh weight = pairs(_mm512_loadu_si512(row + k));
                _mm_prefetch((const char*)(ahead + k), _MM_HINT_T0);
                for (int c = 0; c < C; c++)
                    own[c] = _mm512_dpbf16_ps(own[c], weight, pairs(_mm512_loadu_si512(x + c * a.K + k)));
            }
            if (k < to) {
                __mmask32 mask = (1u << (to - k)) - 1;
                __m512bh weight = pairs(_mm512_maskz_loadu_epi16(mask, row + k));
                for (int c = 0; c < C; c++)
                    own[c] = _mm512_dpbf16_ps(own[c], weight, pairs(_mm512_maskz_loadu_epi16(mask, x + c * a.K + k)));
            }
            for (int c = 0; c < C; c++) sum[r * C + c] = own[c];
        }
    }
    for (long r = 0; r < count; r++)
        for (int c = 0; c < C; c++)
            a.y[(m + c) * a.N + n + r] = narrow(_mm512_reduce_add_ps(sum[r * C + c]) + a.bias_of(n + r));
}

void long_dots_share(const Linear& a, long from, long to) {
    for (long n = from; n < to; n += 16) {
        long count = n + 16 < to ? 16 : to - n, m = 0;
        for (; m + 8 <= a.M; m += 8) dots_in_blocks<8>(a, n, count, m);
        if (m + 4 <= a.M) { dots_in_blocks<4>(a, n, count, m); m += 4; }
        for (; m + 2 <= a.M; m += 2) dots_in_blocks<2>(a, n, count, m);
        if (m < a.M) dots_in_blocks<1>(a, n, count, m);
    }
}
#endif

void dots_share(const Linear& a, long from, long to) {
    long n = from;
#ifdef __AMX_BF16__
    if (a.M <= 4)
        for (; n + 4 <= to; n += 4) dots_all_rows<4>(a, n);
#else
    if (a.M >= 4 && a.M <= 12 && a.M * a.K * (long)sizeof(bf16) > 2 * BLOCK_BYTES) return long_dots_share(a, from, to);
    // One weight row after the other is a single stream, which the prefetchers of other processors need to keep up.
    if (a.M <= 8)
        for (; n < to; n++) dots_all_rows<1>(a, n);
#endif
    for (; n + 2 <= to; n += 2) dots_all_rows<2>(a, n);
    if (n < to) dots_all_rows<1>(a, n);
}

#ifdef __AMX_BF16__
// ---- AMX: a tile of 16 weight rows in their own layout, times tiles of 16 rows of x, whose pairs are interleaved ----

struct alignas(64) TileShapes {
    uint8_t palette = 1, start = 0, reserved[14] = {};
    uint16_t bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

// x [M][K] as [tile of 16 rows][K / 2][16 rows] pairs; rows beyond M are zero.
void bring_pairs_together(const Linear& a, uint32_t* out) {
    for (long m = 0; m < a.M; m += 16)
        for (long k = 0; k < a.K; k += 32, out += 256) {
            __m512i rows[16];
            for (long i = 0; i < 16; i++)
                rows[i] = m + i < a.M ? _mm512_loadu_si512(a.x + (m + i) * a.K + k) : _mm512_setzero_si512();
            transpose(rows);
            for (int i = 0; i < 16; i++) _mm512_store_si512(out + i * 16, rows[i]);
        }
}

// 16 weight rows from n, T tiles of x from row m.
template <int T>
void tiles(const Linear& a, const uint32_t* x, long n, long m) {
    _tile_zero(0);
    if (T > 1) _tile_zero(1);
    if (T > 2) _tile_zero(2);
    if (T > 3) _tile_zero(3);
    const bf16* w = a.w + n * a.K;
    const long tile = a.K / 2 * 16;
    x += m / 16 * tile;
    for (long k = 0; k < a.K; k += 32, x += 256) {
        _tile_loadd(4, w + k, a.K * 2);
        _tile_loadd(5, x, 64);
        _tile_dpbf16ps(0, 4, 5);
        if (T > 1) { _tile_loadd(6, x + tile, 64); _tile_dpbf16ps(1, 4, 6); }
        if (T > 2) { _tile_loadd(7, x + 2 * tile, 64); _tile_dpbf16ps(2, 4, 7); }
        if (T > 3) { _tile_loadd(5, x + 3 * tile, 64); _tile_dpbf16ps(3, 4, 5); }
    }
    // The stores below hold up the prefetchers: get the next 16 weight rows going first.
    for (int r = 16; r < 32; r++)
        for (int l = 0; l < 2; l++) _mm_prefetch((const char*)(w + r * a.K) + l * 64, _MM_HINT_T0);
    alignas(64) float sum[T][16][16];
    _tile_stored(0, sum[0], 64);
    if (T > 1) _tile_stored(1, sum[T > 1 ? 1 : 0], 64);
    if (T > 2) _tile_stored(2, sum[T > 2 ? 2 : 0], 64);
    if (T > 3) _tile_stored(3, sum[T > 3 ? 3 : 0], 64);
    __m512 bias = a.bias ? load16(a.bias + n) : _mm512_setzero_ps();
    for (int t = 0; t < T; t++, m += 16) {
        __m512i rows[16];
        for (int i = 0; i < 16; i++) rows[i] = _mm512_load_si512(sum[t][i]);
        transpose(rows);
        for (long i = 0; i < 16 && m + i < a.M; i++) {
            __m512 row = _mm512_add_ps(_mm512_castsi512_ps(rows[i]), bias);
            _mm256_storeu_si256((__m256i*)(a.y + (m + i) * a.N + n), narrow16(row));
        }
    }
}

void tiles_share(const Linear& a, long from, long to) {
    uint32_t* x = (uint32_t*)aligned_alloc(64, (a.M + 15) / 16 * 16 * a.K * sizeof(bf16));
    TileShapes shapes;
    _tile_loadconfig(&shapes);
    bring_pairs_together(a, x);
    for (long n = from; n < to; n += 16) {
        long m = 0;
        for (; m + 48 < a.M; m += 64) tiles<4>(a, x, n, m);
        if (m + 16 < a.M) { tiles<2>(a, x, n, m); m += 32; }
        if (m < a.M) tiles<1>(a, x, n, m);
    }
    _tile_release();
    free(x);
}

// Linux enables the tiles on request.
bool tiles_allowed() {
    static const bool allowed = syscall(SYS_arch_prctl, 0x1023 /* ARCH_REQ_XCOMP_PERM */, 18 /* tile data */) == 0;
    return allowed;
}
#endif

// Blocks of 16 outputs; the last may be short.
void share_of_linear(const Linear& a, Share share) {
    long from = share.from * 16, to = share.to * 16 < a.N ? share.to * 16 : a.N;
#ifdef __AMX_BF16__
    if (a.K % 32 == 0 && tiles_allowed()) {
        tiles_share(a, from, to / 16 * 16);
        from = to / 16 * 16 > from ? to / 16 * 16 : from;
    }
#endif
    dots_share(a, from, to);
}

// ---- Attention of a few rows over slots in place ----

const long CHUNK = 256;  // slots that one task reads

struct Attend {
    const bf16 *query, *key, *value;  // [N][H][D], [S][KV][D], [S][KV][V]
    bf16* out;                        // [N][H][V]
    const int64_t *row, *slot;        // [G][R], [G][U]
    const uint8_t* visible;           // [G][R][U] or null
    long H, KV, D, V, G, R, U;
    float scale;
};

// One head's keys and values and one chunk of a group's slots, for all of the group's rows and their query heads.
struct Task {
    const Attend& a;
    long group, head, from, count, folds;

    const bf16* query(long q) const {
        return a.query + (a.row[group * a.R + q / folds] * a.H + head * folds + q % folds) * a.D;
    }
    const bf16* key(long s) const { return a.key + (a.slot[group * a.U + from + s] * a.KV + head) * a.D; }
    const bf16* value(long s) const { return a.value + (a.slot[group * a.U + from + s] * a.KV + head) * a.V; }

    // Which of 16 slots from s the query's row may read.
    __mmask16 visible(long q, long s) const {
        __mmask16 real = first(count - s);
        if (!a.visible) return real;
        const uint8_t* seen = a.visible + (group * a.R + q / folds) * a.U + from + s;
        return real & _mm_test_epi8_mask(_mm_maskz_loadu_epi8(real, seen), _mm_set1_epi8(-1));
    }

    // Scores of 16 slots at a time. `turned` holds D / 2 times 16 pairs.
    void scores(float* out, uint32_t* turned) const {
        for (long s = 0; s < count; s += 16) {
            for (long d = 0; d < a.D; d += 32) {
                __m512i rows[16];
                for (long i = 0; i < 16; i++)
                    rows[i] = s + i < count ? _mm512_loadu_si512(key(s + i) + d) : _mm512_setzero_si512();
                transpose(rows);
                for (int i = 0; i < 16; i++) _mm512_store_si512(turned + (d / 2 + i) * 16, rows[i]);
            }
            for (long i = 0; i < 16 && s + i < count; i++) {
                for (long d = 0; d < a.V; d += 32) _mm_prefetch((const char*)(value(s + i) + d), _MM_HINT_T0);
                if (s + 16 + i < count)
                    for (long d = 0; d < a.D; d += 32) _mm_prefetch((const char*)(key(s + 16 + i) + d), _MM_HINT_T0);
            }
            for (long q = 0; q < a.R * folds; q++) {
                const uint32_t* in = (const uint32_t*)query(q);
                __m512 sum[4] = {_mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps()};
                for (long d = 0; d < a.D / 2; d += 4)
                    for (int i = 0; i < 4; i++)
                        sum[i] = _mm512_dpbf16_ps(sum[i], pairs(_mm512_load_si512(turned + (d + i) * 16)),
                                                  pairs(_mm512_set1_epi32(int(in[d + i]))));
                __m512 all = _mm512_add_ps(_mm512_add_ps(sum[0], sum[1]), _mm512_add_ps(sum[2], sum[3]));
                all = _mm512_mask_mul_ps(_mm512_set1_ps(-INFINITY), visible(q, s), all, _mm512_set1_ps(a.scale));
                _mm512_store_ps(out + q * CHUNK + s, all);
            }
        }
    }

    // Scores become weights in pairs of bfloat16; `top` and `total` per query are used to merge chunks.
    void weigh(long q, const float* score, bf16* weight, float* top, float* total) const {
        __m512 most = _mm512_set1_ps(-INFINITY), sum = _mm512_setzero_ps();
        for (long s = 0; s < count; s += 16) most = _mm512_max_ps(most, _mm512_load_ps(score + q * CHUNK + s));
        *top = _mm512_reduce_max_ps(most);
        for (long s = 0; s < count; s += 16) {
            __m512 v = _mm512_load_ps(score + q * CHUNK + s);
            __mmask16 seen = _mm512_cmp_ps_mask(v, _mm512_set1_ps(-INFINITY), _CMP_GT_OQ);
            v = _mm512_maskz_mov_ps(seen, exp16(_mm512_sub_ps(v, _mm512_set1_ps(*top))));
            sum = _mm512_add_ps(sum, v);
            _mm256_store_si256((__m256i*)(weight + q * CHUNK + s), narrow16(v));
        }
        *total = _mm512_reduce_add_ps(sum);
    }

    // Weighted values of Q queries from q, 32 value columns (or 16, if only those are left) from d.
    template <int Q>
    void values(const bf16* weight, float* out, long q, long d) const {
        __m512 sum[Q][2];
        const bool wide = a.V - d >= 32;
        const __mmask32 mask = wide ? 0xffffffff : 0xffff;
        for (int i = 0; i < Q; i++) sum[i][0] = sum[i][1] = _mm512_setzero_ps();
        for (long s = 0; s < count; s += 2) {
            __m512i even = _mm512_maskz_loadu_epi16(mask, value(s) + d);
            __m512i odd = s + 1 < count ? _mm512_maskz_loadu_epi16(mask, value(s + 1) + d) : _mm512_setzero_si512();
            // Even and odd columns of the two slots are interleaved, and reordered when they are stored.
            __m512bh low = pairs(_mm512_mask_blend_epi16(0xaaaaaaaa, even, _mm512_slli_epi32(odd, 16)));
            __m512bh high = pairs(_mm512_mask_blend_epi16(0xaaaaaaaa, _mm512_srli_epi32(even, 16), odd));
            for (int i = 0; i < Q; i++) {
                __m512bh by = pairs(_mm512_set1_epi32(((const int*)(weight + (q + i) * CHUNK))[s / 2]));
                sum[i][0] = _mm512_dpbf16_ps(sum[i][0], low, by);
                sum[i][1] = _mm512_dpbf16_ps(sum[i][1], high, by);
            }
        }
        const __m512i left = _mm512_set_epi32(23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
        const __m512i right = _mm512_add_epi32(left, _mm512_set1_epi32(8));
        for (int i = 0; i < Q; i++) {
            float* to = out + (q + i) * (a.V + 2) + d;
            _mm512_storeu_ps(to, _mm512_permutex2var_ps(sum[i][0], left, sum[i][1]));
            if (wide) _mm512_storeu_ps(to + 16, _mm512_permutex2var_ps(sum[i][0], right, sum[i][1]));
        }
    }

    template <int Q>
    void values_from(const bf16* weight, float* out, long q) const {
        for (long d = 0; d < a.V; d += 32) values<Q>(weight, out, q, d);
    }

    // Unnormalised output, top score and total weight of every query: [R * folds][V + 2].
    void run(float* out, float* score, bf16* weight, uint32_t* turned) const {
        scores(score, turned);
        const long queries = a.R * folds;
        for (long q = 0; q < queries; q++) {
            float* end = out + q * (a.V + 2) + a.V;
            weigh(q, score, weight, end, end + 1);
        }
        for (long q = 0; q < queries; q += 8) switch (queries - q) {
            case 1: values_from<1>(weight, out, q); break;
            case 2: values_from<2>(weight, out, q); break;
            case 3: values_from<3>(weight, out, q); break;
            case 4: values_from<4>(weight, out, q); break;
            case 5: values_from<5>(weight, out, q); break;
            case 6: values_from<6>(weight, out, q); break;
            case 7: values_from<7>(weight, out, q); break;
            default: values_from<8>(weight, out, q);
        }
    }
};

// ---- Batch-invariant attention: tiles of a plan (see invariant/plan.py), each one chunk of a list of slots for some rows ----

struct AttendTiles {
    const void *query, *key, *value;  // [N][H][D], [S][KV][D], [S][KV][V]
    void* out;                        // [N][H][V]; rows without partials are left alone
    const int32_t *slots, *entries, *tiles, *partials, *offsets;  // as in TilePlan
    long H, KV, D, V, T, N, E;        // T tiles, N rows, E entries
    float scale;
};

inline void store16(bf16* p, __mmask16 mask, __m512 v) { _mm256_mask_storeu_epi16(p, mask, narrow16(v)); }
inline void store16(float* p, __mmask16 mask, __m512 v) { _mm512_mask_storeu_ps(p, mask, v); }

// Scratch memory of one thread, which grows.
struct Scratch {
    char* memory = nullptr;
    size_t size = 0;
    char* get(size_t wanted) {
        if (wanted > size) {
            free(memory);
            size = (wanted + 4095) / 4096 * 4096;
            memory = (char*)aligned_alloc(64, size);
        }
        return memory;
    }
    ~Scratch() { free(memory); }
};

// One head's keys and values of one tile, computed in float, for any head size.
template <class T>
struct Tile {
    const AttendTiles& a;
    const int32_t* tile;
    long head, folds;

    long rows() const { return tile[1]; }
    long count() const { return tile[3] - tile[2]; }
    const int32_t* entry(long row) const { return a.entries + (tile[0] + row) * 3; }
    const T* query(long q) const {
        return (const T*)a.query + (entry(q / folds)[0] * a.H + head * folds + q % folds) * a.D;
    }
    const T* key(long s) const { return (const T*)a.key + (a.slots[tile[2] + s] * a.KV + head) * a.D; }
    const T* value(long s) const { return (const T*)a.value + (a.slots[tile[2] + s] * a.KV + head) * a.V; }

    void scores(float* score, float* queries, float* turned) const {
        const long all = rows() * folds, padded = (a.D + 15) / 16 * 16;
        for (long q = 0; q < all; q++)
            for (long d = 0; d < a.D; d += 16)
                _mm512_store_ps(queries + q * padded + d, load16(query(q) + d, first(a.D - d)));
        for (long s = 0; s < count(); s += 16) {
            for (long d = 0; d < a.D; d += 16) {
                __m512i lines[16];
                for (long i = 0; i < 16; i++)
                    lines[i] = s + i < count() ? _mm512_castps_si512(load16(key(s + i) + d, first(a.D - d))) : _mm512_setzero_si512();
                transpose(lines);
                for (int i = 0; i < 16; i++) _mm512_store_si512(turned + (d + i) * 16, lines[i]);
            }
            for (long q = 0; q < all; q++) {
                const float* in = queries + q * padded;
                __m512 sum[4] = {_mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps()};
                for (long d = 0; d < padded; d += 4)  // beyond D both are zero
                    for (int i = 0; i < 4; i++)
                        sum[i] = _mm512_fmadd_ps(_mm512_load_ps(turned + (d + i) * 16), _mm512_set1_ps(in[d + i]), sum[i]);
                __m512 dot = _mm512_add_ps(_mm512_add_ps(sum[0], sum[1]), _mm512_add_ps(sum[2], sum[3]));
                const int32_t* own = entry(q / folds);
                const long from = own[1] - tile[2] - s, to = own[2] - tile[2] - s;  // the interval, from these 16 slots on
                __mmask16 seen = to > 0 ? first(to) : 0;
                if (from > 0) seen &= ~first(from);
                _mm512_store_ps(score + q * CHUNK + s, _mm512_mask_mul_ps(_mm512_set1_ps(-INFINITY), seen, dot, _mm512_set1_ps(a.scale)));
            }
        }
    }

    void weigh(float* score, float* top, float* total) const {
        __m512 most = _mm512_set1_ps(-INFINITY), sum = _mm512_setzero_ps();
        for (long s = 0; s < count(); s += 16) most = _mm512_max_ps(most, _mm512_load_ps(score + s));
        *top = _mm512_reduce_max_ps(most);
        for (long s = 0; s < count(); s += 16) {
            __m512 v = _mm512_load_ps(score + s);
            __mmask16 seen = _mm512_cmp_ps_mask(v, _mm512_set1_ps(-INFINITY), _CMP_GT_OQ);
            v = _mm512_maskz_mov_ps(seen, exp16(_mm512_sub_ps(v, _mm512_set1_ps(*top))));
            sum = _mm512_add_ps(sum, v);
            _mm512_store_ps(score + s, v);
        }
        *total = _mm512_reduce_add_ps(sum);
    }

    template <int Q>
    void values(const float* weight, float* out, long q) const {
        for (long v = 0; v < a.V; v += 32) {
            const __mmask16 low = first(a.V - v), high = a.V - v > 16 ? first(a.V - v - 16) : 0;
            __m512 sum[Q][2];
            for (int i = 0; i < Q; i++) sum[i][0] = sum[i][1] = _mm512_setzero_ps();
            for (long s = 0; s < count(); s++) {
                const __m512 left = load16(value(s) + v, low), right = load16(value(s) + v + 16, high);
                for (int i = 0; i < Q; i++) {
                    const __m512 by = _mm512_set1_ps(weight[(q + i) * CHUNK + s]);
                    sum[i][0] = _mm512_fmadd_ps(by, left, sum[i][0]);
                    sum[i][1] = _mm512_fmadd_ps(by, right, sum[i][1]);
                }
            }
            for (int i = 0; i < Q; i++) {
                _mm512_mask_storeu_ps(out + (q + i) * (a.V + 2) + v, low, sum[i][0]);
                _mm512_mask_storeu_ps(out + (q + i) * (a.V + 2) + v + 16, high, sum[i][1]);
            }
        }
    }

    void run(float* out, Scratch& scratch) const {
        const long all = rows() * folds, padded = (a.D + 15) / 16 * 16;
        float* score = (float*)scratch.get((all * CHUNK + all * padded + padded * 16) * sizeof(float));
        scores(score, score + all * CHUNK, score + all * CHUNK + all * padded);
        for (long q = 0; q < all; q++) {
            float* end = out + q * (a.V + 2) + a.V;
            weigh(score + q * CHUNK, end, end + 1);
        }
        long q = 0;
        for (; q + 6 <= all; q += 6) values<6>(score, out, q);
        for (; q + 2 <= all; q += 2) values<2>(score, out, q);
        if (q < all) values<1>(score, out, q);
    }
};

// The same with products of pairs of bfloat16. D is a multiple of 32, V of 16.
void run_pairs(const Tile<bf16>& tile, float* out, Scratch& scratch) {
    const AttendTiles& a = tile.a;
    const long rows = tile.rows(), count = tile.count(), all = rows * tile.folds;
    char* memory = scratch.get(all * CHUNK * 6 + a.D * 32 + (rows + count) * sizeof(int64_t) + rows * count);
    uint32_t* turned = (uint32_t*)(memory + all * CHUNK * 6);
    int64_t *row = (int64_t*)(memory + all * CHUNK * 6 + a.D * 32), *slot = row + rows;
    uint8_t* visible = (uint8_t*)(slot + count);
    bool every = true;
    for (long s = 0; s < count; s++) slot[s] = a.slots[tile.tile[2] + s];
    for (long r = 0; r < rows; r++) {
        const int32_t* entry = tile.entry(r);
        const long from = entry[1] - tile.tile[2], to = entry[2] - tile.tile[2];
        row[r] = entry[0];
        every = every && from == 0 && to == count;
        for (long s = 0; s < count; s++) visible[r * count + s] = s >= from && s < to;
    }
    const Attend attend = {(const bf16*)a.query, (const bf16*)a.key, (const bf16*)a.value, nullptr, row, slot,
                           every ? nullptr : visible, a.H, a.KV, a.D, a.V, 1, rows, count, a.scale};
    Task{attend, 0, tile.head, 0, count, tile.folds}.run(out, (float*)memory, (bf16*)(memory + all * CHUNK * 4), turned);
}

void run_tile(const Tile<float>& tile, float* out, Scratch& scratch) { tile.run(out, scratch); }
void run_tile(const Tile<bf16>& tile, float* out, Scratch& scratch) {
    if (tile.a.D % 32 || tile.a.V % 16) tile.run(out, scratch);
    else run_pairs(tile, out, scratch);
}

template <class T>
void attend_tiles(const AttendTiles& a) {
    const long folds = a.H / a.KV, width = a.V + 2;
    float* parts = (float*)malloc(a.KV * a.E * folds * width * sizeof(float));
#pragma omp parallel
    {
        Scratch scratch;
#pragma omp for schedule(dynamic)
        for (long t = 0; t < a.T * a.KV; t++) {
            const Tile<T> tile = {a, a.tiles + t / a.KV * 4, t % a.KV, folds};
            run_tile(tile, parts + (tile.head * a.E + tile.tile[0]) * folds * width, scratch);
        }
#pragma omp for
        for (long n = 0; n < a.N; n++) {
            const int32_t *from = a.partials + a.offsets[n], *to = a.partials + a.offsets[n + 1];
            for (long h = 0; h < a.H && from < to; h++) {
                const float* own = parts + (h / folds * a.E * folds + h % folds) * width;
                float top = -INFINITY, total = 0.0f;
                for (const int32_t* p = from; p < to; p++) top = fmaxf(top, own[*p * folds * width + a.V]);
                for (const int32_t* p = from; p < to; p++)
                    total += expf(own[*p * folds * width + a.V] - top) * own[*p * folds * width + a.V + 1];
                for (long v = 0; v < a.V; v += 16) {
                    const __mmask16 mask = first(a.V - v);
                    __m512 sum = _mm512_setzero_ps();
                    for (const int32_t* p = from; p < to; p++) {
                        const float* part = own + *p * folds * width;
                        sum = _mm512_fmadd_ps(_mm512_set1_ps(expf(part[a.V] - top)), load16(part + v, mask), sum);
                    }
                    store16((T*)a.out + (n * a.H + h) * a.V + v, mask, _mm512_div_ps(sum, _mm512_set1_ps(total)));
                }
            }
        }
    }
    free(parts);
}

// Adds up the chunks of one query, each `stride` floats after the other.
void merge(const float* part, long chunks, long stride, long V, bf16* out) {
    float top = -INFINITY, total = 0.0f;
    for (long c = 0; c < chunks; c++) top = fmaxf(top, part[c * stride + V]);
    for (long c = 0; c < chunks; c++) total += expf(part[c * stride + V] - top) * part[c * stride + V + 1];
    for (long v = 0; v < V; v += 16) {
        __m512 sum = _mm512_setzero_ps();
        for (long c = 0; c < chunks; c++)
            sum = _mm512_fmadd_ps(_mm512_set1_ps(expf(part[c * stride + V] - top)), _mm512_loadu_ps(part + c * stride + v), sum);
        _mm256_storeu_si256((__m256i*)(out + v), narrow16(_mm512_div_ps(sum, _mm512_set1_ps(total))));
    }
}

}  // namespace

extern "C" {

// y = x w^T + bias.
void multiverse_linear(const bf16* x, const bf16* w, const bf16* bias, bf16* y, long M, long K, long N) {
    const Linear a = {x, w, bias, y, M, K, N};
#pragma omp parallel
    {
        Share share((N + 15) / 16);
        share_of_linear(a, share);
    }
}

// y = x w^T + bias, rounded, + residual.
void multiverse_linear_add(const bf16* x, const bf16* w, const bf16* bias, const bf16* residual, bf16* y, long M, long K, long N) {
    const Linear a = {x, w, bias, y, M, K, N};
#pragma omp parallel
    {
        Share share((N + 15) / 16);
        share_of_linear(a, share);
        // The columns just written, by the thread that wrote them.
        for (long m = 0; m < M; m++)
            for (long n = share.from * 16; n < share.to * 16 && n < N; n += 16) {
                __mmask16 mask = first(N - n);
                __m512 sum = _mm512_add_ps(load16(y + m * N + n, mask), load16(residual + m * N + n, mask));
                _mm256_mask_storeu_epi16(y + m * N + n, mask, narrow16(sum));
            }
    }
}

// y = silu(x gate^T) * (x up^T), rounded where two layers and two operators would round. `other` is scratch memory of y's size.
void multiverse_gated(const bf16* x, const bf16* gate, const bf16* up, bf16* y, bf16* other, long M, long K, long N) {
#pragma omp parallel
    {
        Share share((N + 15) / 16);
        share_of_linear({x, gate, nullptr, y, M, K, N}, share);
        share_of_linear({x, up, nullptr, other, M, K, N}, share);
        // The columns just written, by the thread that wrote them.
        for (long m = 0; m < M; m++)
            for (long n = share.from * 16; n < share.to * 16 && n < N; n += 16) {
                __mmask16 mask = first(N - n);
                __m512 v = load16(y + m * N + n, mask), one = _mm512_set1_ps(1.0f);
                // x / (1 + e^-x), with the exponential of a non-positive number for either sign of x.
                __m512 small = exp16(_mm512_sub_ps(_mm512_setzero_ps(), _mm512_abs_ps(v)));
                __mmask16 negative = _mm512_cmp_ps_mask(v, _mm512_setzero_ps(), _CMP_LT_OQ);
                __m512 part = _mm512_mask_mov_ps(one, negative, small);
                v = widen16(narrow16(_mm512_div_ps(_mm512_mul_ps(v, part), _mm512_add_ps(one, small))));
                v = _mm512_mul_ps(v, load16(other + m * N + n, mask));
                _mm256_mask_storeu_epi16(y + m * N + n, mask, narrow16(v));
            }
    }
}

// y = x / rms(x), times `weight`, row by row. `form` says how the model's own code rounds:
// 0: weight * bf16(x / rms); 1: bf16(weight * x / rms); 2: bf16((1 + weight) * x / rms).
void multiverse_rms_norm(const bf16* x, const bf16* weight, bf16* y, long M, long K, float epsilon, int form) {
#pragma omp parallel for if (M * K > 1 << 17)
    for (long m = 0; m < M; m++) {
        const bf16* in = x + m * K;
        bf16* out = y + m * K;
        __m512 square = _mm512_setzero_ps();
        for (long k = 0; k < K; k += 16) {
            __m512 v = load16(in + k, first(K - k));
            square = _mm512_fmadd_ps(v, v, square);
        }
        const __m512 scale = _mm512_set1_ps(1.0f / sqrtf(_mm512_reduce_add_ps(square) / float(K) + epsilon));
        for (long k = 0; k < K; k += 16) {
            __mmask16 mask = first(K - k);
            __m512 v = _mm512_mul_ps(load16(in + k, mask), scale), by = load16(weight + k, mask);
            if (form == 0) v = widen16(narrow16(v));
            if (form == 2) by = _mm512_add_ps(by, _mm512_set1_ps(1.0f));
            _mm256_mask_storeu_epi16(out + k, mask, narrow16(_mm512_mul_ps(v, by)));
        }
    }
}

// Queries, keys and values of N rows: queries and keys are (normed and) rotated, keys and values are written to their slots.
// Rounded where the operators that this replaces round. D is a multiple of 32.
void multiverse_rotate(const Rotate* rotate) {
    const Rotate& a = *rotate;
    const long heads = a.H + 2 * a.KV, half = a.D / 2;
#pragma omp parallel for if (a.N * heads * a.D > 1 << 16)
    for (long n = 0; n < a.N; n++)
        for (long h = 0; h < heads; h++) {
            const bf16* in = a.qkv + (n * heads + h) * a.D;
            if (h >= a.H + a.KV) {
                memcpy(a.value + (a.slot[n] * a.KV + h - a.H - a.KV) * a.D, in, a.D * sizeof(bf16));
                continue;
            }
            bf16* out = h < a.H ? a.query + (n * a.H + h) * a.D : a.key + (a.slot[n] * a.KV + h - a.H) * a.D;
            const bf16 *norm = h < a.H ? a.query_norm : a.key_norm, *cos = a.cos + n * a.D, *sin = a.sin + n * a.D;
            __m512 scale = _mm512_set1_ps(1.0f);
            if (norm) {
                __m512 square = _mm512_setzero_ps();
                for (long d = 0; d < a.D; d += 16) square = _mm512_fmadd_ps(load16(in + d), load16(in + d), square);
                scale = _mm512_set1_ps(1.0f / sqrtf(_mm512_reduce_add_ps(square) / float(a.D) + a.epsilon));
            }
            for (long d = 0; d < half; d += 16) {
                __m512 low = load16(in + d), high = load16(in + d + half);
                if (norm) {
                    low = rounded(_mm512_mul_ps(load16(norm + d), rounded(_mm512_mul_ps(low, scale))));
                    high = rounded(_mm512_mul_ps(load16(norm + d + half), rounded(_mm512_mul_ps(high, scale))));
                }
                __m512 first = _mm512_sub_ps(rounded(_mm512_mul_ps(low, load16(cos + d))), rounded(_mm512_mul_ps(high, load16(sin + d))));
                __m512 second = _mm512_add_ps(rounded(_mm512_mul_ps(high, load16(cos + d + half))),
                                              rounded(_mm512_mul_ps(low, load16(sin + d + half))));
                _mm256_storeu_si256((__m256i*)(out + d), narrow16(first));
                _mm256_storeu_si256((__m256i*)(out + d + half), narrow16(second));
            }
        }
}

// Attention of G groups of R rows over the U slots of each. D is a multiple of 32 and V of 16; every row may read some slot.
void multiverse_attend(const Attend* attend) {
    const Attend& a = *attend;
    const long folds = a.H / a.KV, queries = a.R * folds, chunks = (a.U + CHUNK - 1) / CHUNK;
    const long part = queries * (a.V + 2);
    float* parts = (float*)malloc(a.G * a.KV * chunks * part * sizeof(float));
#pragma omp parallel
    {
        char* room = (char*)aligned_alloc(64, queries * CHUNK * 6 + a.D * 32);
        float* score = (float*)room;
        bf16* weight = (bf16*)(room + queries * CHUNK * 4);
        uint32_t* turned = (uint32_t*)(room + queries * CHUNK * 6);
#pragma omp for schedule(dynamic)
        for (long t = 0; t < a.G * a.KV * chunks; t++) {
            long from = t % chunks * CHUNK, count = a.U - from < CHUNK ? a.U - from : CHUNK;
            Task{a, t / chunks / a.KV, t / chunks % a.KV, from, count, folds}.run(parts + t * part, score, weight, turned);
        }
        free(room);
#pragma omp for
        for (long t = 0; t < a.G * a.KV; t++) {
            Task task{a, t / a.KV, t % a.KV, 0, 0, folds};
            for (long q = 0; q < queries; q++)
                merge(parts + t * chunks * part + q * (a.V + 2), chunks, part, a.V,
                      a.out + (task.query(q) - a.query) / a.D * a.V);
        }
    }
    free(parts);
}

void multiverse_attend_tiles(const AttendTiles* attend) { attend_tiles<bf16>(*attend); }
void multiverse_attend_tiles_float(const AttendTiles* attend) { attend_tiles<float>(*attend); }

// Most slots of a tile.
long multiverse_chunk(void) { return CHUNK; }

// Most rows for which `multiverse_linear` is faster than a matrix product that reorders weights.
long multiverse_rows(void) {
#ifdef __AMX_BF16__
    if (tiles_allowed()) return 128;
#endif
    return 32;
}

}  // extern "C"
