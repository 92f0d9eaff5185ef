"""The inner loops of the search, compiled: 8-bit scans with a bound, exact scores, a heap.

Everything that is compiled stands in this one file, because the compiler's cache watches one file
a function. Two loops are written for the processor directly: `lanes_above` multiplies 64 vectors'
codes with a query's weights by the 8-bit dot-product instruction where there is one (AVX-512
VNNI), else by ordinary 16-bit multiply-adds, and gives one bit a vector.
"""

from typing import NamedTuple

import numpy as np
from llvmlite import binding, ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

LANES = 64
"""Vectors in a block: one bit each in the mask a scan gives."""

GROUP = 4
"""Codes of one vector that one instruction multiplies and adds."""

BYTES = LANES * GROUP
CELLS_TOGETHER = 24
"""Cells that all queries of a group read before the next: their codes stay in the caches."""

STRIDE = 32
"""Scores looked at together before any is looked at alone."""

LOWEST = np.iinfo(np.int32).min
NOBODY = np.iinfo(np.int64).max
"""Row of an empty place in a heap: worse than every row in a tie."""

HAS_DOT_INSTRUCTION = bool(binding.get_host_cpu_features().get("avx512vnni"))


def _splat(builder, value, width):
    vector = ir.VectorType(value.type, width)
    empty = ir.Constant(vector, ir.Undefined)
    first = builder.insert_element(empty, value, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(
        first, empty, ir.Constant(ir.VectorType(ir.IntType(32), width), [0] * width)
    )


def _multiply_add_by_instruction(builder, total, codes, weights):
    """total[i] += sum over 4 of codes[i, j] weights[i, j], by one VNNI instruction."""
    vector, octets = total.type, ir.VectorType(ir.IntType(8), LANES)
    function = cgutils.get_or_insert_function(
        builder.module,
        ir.FunctionType(vector, [vector, octets, octets]),
        "llvm.x86.avx512.vpdpbusd.512",
    )
    return builder.call(
        function, [total, builder.bitcast(codes, octets), builder.bitcast(weights, octets)]
    )


def _multiply_add_by_halves(builder, total, codes, weights):
    """The same by 16-bit pairs, in a form that compilers turn into multiply-adds of pairs."""
    i16, i32 = ir.IntType(16), ir.IntType(32)
    halves, wide = ir.VectorType(i16, 32), ir.VectorType(i32, 32)
    even, odd = ([2 * i + j for i in range(16)] for j in (0, 1))
    picks = [ir.Constant(ir.VectorType(i32, 16), pick) for pick in (even, odd)]
    eight = ir.Constant(halves, [8] * 32)
    low = ir.Constant(halves, [255] * 32)
    code, weight = builder.bitcast(codes, halves), builder.bitcast(weights, halves)
    pairs = (
        (builder.and_(code, low), builder.ashr(builder.shl(weight, eight), eight)),
        (builder.lshr(code, eight), builder.ashr(weight, eight)),
    )
    empty = ir.Constant(wide, ir.Undefined)
    for left, right in pairs:
        product = builder.mul(builder.sext(left, wide), builder.sext(right, wide))
        parts = [builder.shuffle_vector(product, empty, pick) for pick in picks]
        total = builder.add(total, builder.add(*parts))
    return total


def _data(context, builder, signature, args, i):
    return context.make_array(signature.args[i])(context, builder, args[i]).data


@intrinsic
def lanes_above(_typing, codes, start, weights, first, groups, bias, place, per_unit, limit):
    """Which of 64 vectors have sum(codes weights) + bias above a limit, as 64 bits.

    Args:
        codes: uint8, 1-D; block b is (groups, 64, 4) from ``start``.
        weights: int32, 1-D, four int8 weights each, from ``first`` on, shape (groups,).
        bias: float32, 1-D, added after a product with per_unit; from ``place``. Of length 0: none.
        limit: int32.
    """
    signature = types.uint64(
        codes, types.int64, weights, types.int64, types.int64, bias, types.int64, types.float32,
        types.int32,
    )  # fmt: skip

    def generate(context, builder, sig, args):
        multiply_add = (
            _multiply_add_by_instruction if HAS_DOT_INSTRUCTION else _multiply_add_by_halves
        )
        i32, i64, f32 = ir.IntType(32), ir.IntType(64), ir.FloatType()
        lanes, floats = ir.VectorType(i32, 16), ir.VectorType(f32, 16)
        code = builder.gep(_data(context, builder, sig, args, 0), [args[1]])
        weight = builder.gep(_data(context, builder, sig, args, 2), [args[3]])
        extra = context.make_array(sig.args[5])(context, builder, args[5])
        count = builder.extract_value(extra.shape, 0)
        before = builder.block
        with builder.if_then(builder.icmp_signed(">", count, ir.Constant(i64, 0))):
            unit = _splat(builder, args[7], 16)
            given = []
            for a in range(4):
                where = builder.add(args[6], ir.Constant(i64, 16 * a))
                pointer = builder.bitcast(builder.gep(extra.data, [where]), floats.as_pointer())
                scaled = builder.fmul(builder.load(pointer, align=4), unit)
                given.append(builder.fptosi(scaled, lanes))
            inside = builder.block
        starts = []
        for value in given:
            phi = builder.phi(lanes)
            phi.add_incoming(ir.Constant(lanes, [0] * 16), before)
            phi.add_incoming(value, inside)
            starts.append(phi)
        entry = builder.block
        loop, end = builder.append_basic_block("groups"), builder.append_basic_block("end")
        builder.branch(loop)
        builder.position_at_end(loop)
        i = builder.phi(i64)
        i.add_incoming(ir.Constant(i64, 0), entry)
        totals = [builder.phi(lanes) for _ in range(4)]
        wanted = _splat(builder, builder.load(builder.gep(weight, [i])), 16)
        offset = builder.mul(i, ir.Constant(i64, BYTES))
        sums = []
        for a, (total, begin) in enumerate(zip(totals, starts)):
            total.add_incoming(begin, entry)
            place = builder.gep(code, [builder.add(offset, ir.Constant(i64, 64 * a))])
            block = builder.load(builder.bitcast(place, lanes.as_pointer()), align=1)
            sums.append(multiply_add(builder, total, block, wanted))
            total.add_incoming(sums[-1], loop)
        after = builder.add(i, ir.Constant(i64, 1))
        i.add_incoming(after, loop)
        builder.cbranch(builder.icmp_signed("<", after, args[4]), loop, end)
        builder.position_at_end(end)
        bound = _splat(builder, args[8], 16)
        mask = ir.Constant(i64, 0)
        for a, total in enumerate(sums):
            bits = builder.bitcast(builder.icmp_signed(">", total, bound), ir.IntType(16))
            bits = builder.shl(builder.zext(bits, i64), ir.Constant(i64, 16 * a))
            mask = builder.or_(mask, bits)
        return mask

    return signature, generate


@intrinsic
def exact_score(_typing, vectors, place, query, g, is_distance):
    """x.q, or -|x - q|^2 / 2: eight running sums in float64, always in the same order.

    No operation is fused or reordered, so every machine gives the same bits.

    Args:
        vectors: float32, C order, (n, w) with w a multiple of 8; its row ``place``.
        query: float64, C order, (g, w); its row ``g``.
    """
    signature = types.float64(vectors, types.int64, query, types.int64, types.boolean)

    def generate(context, builder, sig, args):
        i1, i64, f32, f64 = ir.IntType(1), ir.IntType(64), ir.FloatType(), ir.DoubleType()
        narrow, wide = ir.VectorType(f32, 8), ir.VectorType(f64, 8)
        width = builder.extract_value(
            context.make_array(sig.args[0])(context, builder, args[0]).shape, 1
        )
        left = builder.gep(_data(context, builder, sig, args, 0), [builder.mul(args[1], width)])
        right = builder.gep(_data(context, builder, sig, args, 2), [builder.mul(args[3], width)])
        flag = builder.trunc(args[4], i1) if args[4].type != i1 else args[4]
        entry = builder.block
        loop, end = builder.append_basic_block("eights"), builder.append_basic_block("sum")
        builder.branch(loop)
        builder.position_at_end(loop)
        i, total = builder.phi(i64), builder.phi(wide)
        i.add_incoming(ir.Constant(i64, 0), entry)
        total.add_incoming(ir.Constant(wide, [0.0] * 8), entry)
        x = builder.load(builder.bitcast(builder.gep(left, [i]), narrow.as_pointer()), align=4)
        q = builder.load(builder.bitcast(builder.gep(right, [i]), wide.as_pointer()), align=8)
        x = builder.fpext(x, wide)
        step = builder.fsub(x, q)
        product = builder.select(flag, builder.fneg(builder.fmul(step, step)), builder.fmul(x, q))
        grown = builder.fadd(total, product)
        after = builder.add(i, ir.Constant(i64, 8))
        i.add_incoming(after, loop)
        total.add_incoming(grown, loop)
        builder.cbranch(builder.icmp_signed("<", after, width), loop, end)
        builder.position_at_end(end)
        t = [builder.extract_element(grown, ir.Constant(ir.IntType(32), j)) for j in range(8)]
        fours = [builder.fadd(t[j], t[j + 4]) for j in range(4)]
        value = builder.fadd(builder.fadd(fours[0], fours[2]), builder.fadd(fours[1], fours[3]))
        half = ir.Constant(f64, 0.5)
        return builder.select(flag, builder.fmul(half, value), value)

    return signature, generate


def compile_lanes_above():
    """`lanes_above` as a function of its own, for a caller outside compiled code."""

    @njit
    def scan(codes, start, weights, first, groups, bias, place, per_unit, limit):
        return lanes_above(
            codes, start, weights, first, groups, bias, place, np.float32(per_unit), limit
        )

    return scan


@intrinsic
def lowest_bit(_typing, mask):
    """Number of the lowest bit that is set; the mask is not 0."""

    def generate(_context, builder, _signature, args):
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.uint64), generate


class Codes(NamedTuple):
    """8-bit codes of vectors, and how far they may be wrong.

    value[i] = offset[i] + scale[i] (code[i] - 128) + e[i], |e| <= error, |code - 128| <= length.
    """

    packed: np.ndarray
    groups: int
    scale: np.ndarray
    offset: np.ndarray
    error: float
    length: float


class Store(NamedTuple):
    """Everything a search reads: vectors in the order of their cells, padded to whole blocks.

    Args:
        vectors: float32 (blocks 64, w), w a multiple of 8, zeros where padded.
        rows: The caller's row of each, -1 where padded.
        target: Code of the object of each.
        first: First block of each cell and the end, (cells + 1,).
        turn: Orthogonal axes, columns by falling power, float64 (d, d).
        mean: Subtracted before the turn, float64 (d,).
        centre: Of the cells, turned, float64 (d, cells).
        radius: Largest distance of a member from its centre, (cells,).
        power: Largest squared length of a member, (cells,).
        coarse: Codes of the first axes and of the length of the rest.
        fine: Codes of all axes.
        bias: float32 -|x|^2 / 2 for distances; of length 0 for similarities.
        reach: Largest length of a turned vector.
        shift: Length of the mean.
    """

    vectors: np.ndarray
    rows: np.ndarray
    target: np.ndarray
    first: np.ndarray
    turn: np.ndarray
    mean: np.ndarray
    centre: np.ndarray
    radius: np.ndarray
    power: np.ndarray
    coarse: Codes
    fine: Codes
    bias: np.ndarray
    reach: float
    shift: float


class Asked(NamedTuple):
    """The queries of one call and what is known of each so far; g queries, k wanted of each.

    The heap keeps the k best, the worst of them first.
    """

    query: np.ndarray  # (g, w) float64
    excluded: np.ndarray  # (g,) target code, -1 for none
    allowed: np.ndarray  # (rows,) uint8, 0 = passed over; of length 0: all are allowed
    turned: np.ndarray  # (g, d)
    weights: np.ndarray  # (2 g stride,) int32: coarse, fine
    stride: int
    unit: np.ndarray  # (2, g) score of one step of the integer sum
    base: np.ndarray  # (2, g) highest score at integer sum 0
    upper: np.ndarray  # (g, cells) bound on every score in a cell
    away: np.ndarray  # (g, cells) squared distance from the centre
    waits: np.ndarray  # (g, cells) not yet looked into
    score: np.ndarray  # (g, k)
    row: np.ndarray  # (g, k)
    place: np.ndarray  # (g, k)
    work: np.ndarray  # (3, g): blocks scanned coarsely, finely, vectors scored


@njit(cache=True, nogil=True, forceinline=True)
def is_worse(score, row, other_score, other_row):
    """Does the first answer rank below the other: a lower score, or the same and a later row."""
    return score < other_score or (score == other_score and row > other_row)


@njit(cache=True, nogil=True)
def sink(scores, rows, places, g, i, k):
    """Restore the heap of the first k answers below the i-th, which got better."""
    while True:
        child = 2 * i + 1
        if child >= k:
            return
        if child + 1 < k and is_worse(
            scores[g, child + 1], rows[g, child + 1], scores[g, child], rows[g, child]
        ):
            child += 1
        if is_worse(scores[g, i], rows[g, i], scores[g, child], rows[g, child]):
            return
        scores[g, i], scores[g, child] = scores[g, child], scores[g, i]
        rows[g, i], rows[g, child] = rows[g, child], rows[g, i]
        places[g, i], places[g, child] = places[g, child], places[g, i]
        i = child


@njit(cache=True, nogil=True)
def offer(scores, rows, places, g, target, place, row, score, by_target):
    """Take in an answer that is better than the worst; each target once where asked for."""
    k, at = scores.shape[1], 0
    if by_target:
        for i in range(k):
            if places[g, i] >= 0 and target[places[g, i]] == target[place]:
                if not is_worse(scores[g, i], rows[g, i], score, row):
                    return
                at = i
                break
    scores[g, at], rows[g, at], places[g, at] = score, row, place
    sink(scores, rows, places, g, at, k)


@njit(cache=True, nogil=True, forceinline=True)
def limit_for(score, base, unit):
    """The integer sum that cannot be exceeded by a vector whose score is below this one."""
    if score == -np.inf:
        return np.int32(LOWEST)
    return np.int32(min(max(np.floor((score - base) / unit) - 2.0, -2147483000.0), 2147483000.0))


@njit(cache=True, nogil=True)
def scan_cells(store, asked, g, low, high, use_coarse, by_target, cutoff):
    """Offer every vector whose bounds reach the k-th best score, of cells that still wait."""
    coarse, fine, bias = store.coarse.packed, store.fine.packed, store.bias
    n_coarse, n_fine = store.coarse.groups, store.fine.groups
    is_distance = len(bias) > 0
    vectors, query, rows, target = store.vectors, asked.query, store.rows, store.target
    weights, excluded, first = asked.weights, asked.excluded[g], store.first
    allowed, is_filtered = asked.allowed, len(asked.allowed) > 0
    waits, upper, work = asked.waits, asked.upper, asked.work
    at_0, at_1 = g * asked.stride, (len(query) + g) * asked.stride
    scores, best_rows, places = asked.score, asked.row, asked.place
    base_0, base_1 = asked.base[0, g], asked.base[1, g]
    unit_0, unit_1 = asked.unit[0, g], asked.unit[1, g]
    worst, worst_row = scores[g, 0], best_rows[g, 0]
    limit_0, limit_1 = limit_for(worst, base_0, unit_0), limit_for(worst, base_1, unit_1)
    per_0, per_1 = np.float32(1.0 / unit_0), np.float32(1.0 / unit_1)
    n_coarsely = n_finely = n_scored = 0
    for cell in range(low, high):
        if not waits[g, cell] or upper[g, cell] < worst:
            continue
        if worst > cutoff:
            break
        waits[g, cell] = False
        for block in range(first[cell], first[cell + 1]):
            at = block * LANES
            n_coarsely += 1
            if use_coarse and not lanes_above(
                coarse, at * n_coarse * GROUP, weights, at_0, n_coarse, bias, at, per_0, limit_0
            ):
                continue
            mask = lanes_above(
                fine, at * n_fine * GROUP, weights, at_1, n_fine, bias, at, per_1, limit_1
            )
            n_finely += 1
            while mask != 0:
                place = at + lowest_bit(mask)
                mask &= mask - np.uint64(1)
                if rows[place] < 0 or target[place] == excluded:
                    continue
                if is_filtered and allowed[rows[place]] == 0:
                    continue
                n_scored += 1
                score = exact_score(vectors, place, query, g, is_distance)
                if is_worse(worst, worst_row, score, rows[place]):
                    offer(
                        scores, best_rows, places, g, target, place, rows[place], score, by_target
                    )
                    worst, worst_row = scores[g, 0], best_rows[g, 0]
                    limit_0 = limit_for(worst, base_0, unit_0)
                    limit_1 = limit_for(worst, base_1, unit_1)
    work[0, g] += n_coarsely
    work[1, g] += n_finely
    work[2, g] += n_scored


@njit(cache=True, nogil=True)
def weigh(store, asked, g, stage, codes, values, norm, slack):
    """Quantise a query's weights for one set of codes, and bound what the quantising may hide."""
    n_slots = len(values)
    weighted = np.empty(n_slots)
    base, peak, length = 0.0, 0.0, 0.0
    for i in range(n_slots):
        base += codes.offset[i] * values[i]
        weighted[i] = codes.scale[i] * values[i]
        peak = max(peak, abs(weighted[i]))
        length += values[i] * values[i]
    deepest = 0.5 * store.reach * store.reach if len(store.bias) else 0.0
    unit = max(peak / 127.0, deepest / 2.0**28)
    if unit == 0.0:
        unit = 1.0
    total, missed = 0, 0.0
    packed = np.zeros(codes.groups * GROUP, np.int8)
    for i in range(n_slots):
        whole = np.int64(np.rint(weighted[i] / unit))
        packed[i] = whole
        total += whole
        missed += (weighted[i] - unit * whole) ** 2
    start = (stage * len(asked.query) + g) * asked.stride
    asked.weights[start : start + codes.groups] = packed.view(np.int32)
    # bias: one unit for the truncation, 2^-22 for two roundings to float32
    hidden = (1.0 + 2.0**-22 * deepest / unit) * unit if deepest else 0.0
    doubt = codes.error * np.sqrt(length) + codes.length * np.sqrt(missed) + hidden + slack
    asked.unit[stage, g] = unit
    asked.base[stage, g] = base - norm - 128.0 * total * unit + doubt


@njit(cache=True, nogil=True)
def prepare(store, asked, g, low, high, radii):
    """Turn a query, weigh it for both stages, and bound its score in the cells low to high.

    Args:
        radii: Share of each cell's radius that is believed in; below 1 the bounds are likely, not
            sure.
    """
    d = len(store.centre)
    is_distance = len(store.bias) > 0
    turned = asked.turned[g]
    turned[:] = 0.0
    for i in range(d):
        value = asked.query[g, i] - store.mean[i]
        for j in range(d):
            turned[j] += value * store.turn[i, j]
    n_head = len(store.coarse.scale) - 1
    head = np.zeros(n_head + 1)
    power = rest = 0.0
    for j in range(d):
        power += turned[j] ** 2
        if j < n_head:
            head[j] = turned[j]
        else:
            rest += turned[j] ** 2
    head[n_head] = np.sqrt(rest)
    norm = 0.5 * power if is_distance else 0.0
    span = store.reach + np.sqrt(power)
    slack = 1e-9 * span * span + 1e-13 * store.shift * span
    weigh(store, asked, g, 0, store.coarse, head, norm, slack)
    weigh(store, asked, g, 1, store.fine, turned, norm, slack)
    away, upper = asked.away[g], asked.upper[g]
    away[low:high] = 0.0
    for j in range(d):
        value = turned[j]
        centres = store.centre[j]
        for cell in range(low, high):
            away[cell] += (centres[cell] - value) ** 2
    for cell in range(low, high):
        near = max(0.0, np.sqrt(away[cell]) - radii * store.radius[cell])
        score = -0.5 * near * near
        if not is_distance:
            score += 0.5 * (store.power[cell] + power)
        upper[cell] = score + slack
    asked.score[g] = -np.inf
    asked.row[g] = NOBODY
    asked.place[g] = -1


@njit(cache=True, nogil=True)
def sort_best_first(asked, g):
    """Unfold a heap: its worst goes last, again and again."""
    scores, rows, places = asked.score, asked.row, asked.place
    for last in range(scores.shape[1] - 1, 0, -1):
        scores[g, 0], scores[g, last] = scores[g, last], scores[g, 0]
        rows[g, 0], rows[g, last] = rows[g, last], rows[g, 0]
        places[g, 0], places[g, last] = places[g, last], places[g, 0]
        sink(scores, rows, places, g, 0, last)


@njit(cache=True, nogil=True)
def search_cells(store, asked, low, high, seeds, radii, use_coarse, by_target, cutoff):
    """Answer a group of queries among the cells from low to high; answers end best first.

    The nearest ``seeds`` cells of each query come first, so that the others meet a limit that is
    already high. Then each cell is read once for all queries whose bound it reaches.

    Args:
        radii: As in `prepare`; 1: exact.
        cutoff: Leave a query as soon as its k-th best score is above; inf for never.
    """
    n_queries = len(asked.query)
    waits, distance = asked.waits, asked.away
    for g in range(n_queries):
        prepare(store, asked, g, low, high, radii)
        waits[g, low:high] = True
        for _ in range(seeds):
            best = -1
            for cell in range(low, high):
                if waits[g, cell] and (best < 0 or distance[g, cell] < distance[g, best]):
                    best = cell
            if best < 0:
                break
            scan_cells(store, asked, g, best, best + 1, use_coarse, by_target, cutoff)
            waits[g, best] = False
    step = high - low if n_queries == 1 else CELLS_TOGETHER
    for start in range(low, high, step):
        for g in range(n_queries):
            end = min(start + step, high)
            scan_cells(store, asked, g, start, end, use_coarse, by_target, cutoff)
    for g in range(n_queries):
        sort_best_first(asked, g)


@njit(cache=True, nogil=True)
def search_all(store, asked, by_target):
    """Answer a group by scoring everything exactly, some blocks at a time for all queries."""
    is_distance = len(store.bias) > 0
    vectors, target, query, every = store.vectors, store.target, asked.query, store.rows
    scores, rows, places = asked.score, asked.row, asked.place
    allowed, is_filtered = asked.allowed, len(asked.allowed) > 0
    scores[:], rows[:], places[:] = -np.inf, NOBODY, -1
    step = CELLS_TOGETHER * LANES
    for start in range(0, len(every), step):
        for g in range(len(query)):
            worst, worst_row = scores[g, 0], rows[g, 0]
            for place in range(start, min(start + step, len(every))):
                row = every[place]
                score = exact_score(vectors, place, query, g, is_distance)
                if row < 0 or not is_worse(worst, worst_row, score, row):
                    continue
                if target[place] == asked.excluded[g] or (is_filtered and allowed[row] == 0):
                    continue
                offer(scores, rows, places, g, target, place, row, score, by_target)
                worst, worst_row = scores[g, 0], rows[g, 0]
    for g in range(len(query)):
        sort_best_first(asked, g)


@njit(cache=True, nogil=True)
def search_places(store, asked, wanted, by_target):
    """Answer a group by scoring exactly what stands at some places, shape (m,)."""
    is_distance = len(store.bias) > 0
    vectors, target, query, every = store.vectors, store.target, asked.query, store.rows
    scores, rows, places = asked.score, asked.row, asked.place
    scores[:], rows[:], places[:] = -np.inf, NOBODY, -1
    for g in range(len(query)):
        worst, worst_row = scores[g, 0], rows[g, 0]
        for place in wanted:
            row = every[place]
            score = exact_score(vectors, place, query, g, is_distance)
            if not is_worse(worst, worst_row, score, row) or target[place] == asked.excluded[g]:
                continue
            offer(scores, rows, places, g, target, place, row, score, by_target)
            worst, worst_row = scores[g, 0], rows[g, 0]
        sort_best_first(asked, g)


@njit(cache=True, nogil=True)
def kth_best(scores, target, by_target, best, whose, bound):
    """The k-th best score of each vector of a cell among the others of other targets.

    Args:
        scores: Of all pairs, float32 (m, m).
        target: (m,).
        by_target: Each target counts once.
        best: Room for k scores, float32 (k,).
        whose: Room for their targets, (k,).
        bound: Filled, -inf where there are fewer than k, (m,).
    """
    k, m = len(best), len(scores)
    for i in range(m):
        best[:], whose[:] = -np.inf, -1
        for start in range(0, m, STRIDE):
            end = min(start + STRIDE, m)
            worst = best[k - 1]
            passed = 0
            for j in range(start, end):  # without a branch, so many are compared at once
                passed += scores[i, j] > worst
            if passed == 0:
                continue
            for j in range(start, end):
                score = scores[i, j]
                if score <= best[k - 1] or target[j] == target[i]:
                    continue
                at = k - 1
                if by_target:
                    for earlier in range(k):
                        if whose[earlier] == target[j]:
                            at = earlier
                            break
                    if score <= best[at]:
                        continue
                while at > 0 and best[at - 1] < score:
                    best[at], whose[at] = best[at - 1], whose[at - 1]
                    at -= 1
                best[at], whose[at] = score, target[j]
        bound[i] = best[k - 1]


@njit(cache=True, nogil=True)
def score_all(vectors, query, is_distance):
    """Exact scores of one query (1, w) with all vectors, (n,): brute force."""
    scores = np.empty(len(vectors))
    for i in range(len(vectors)):
        scores[i] = exact_score(vectors, i, query, 0, is_distance)
    return scores
