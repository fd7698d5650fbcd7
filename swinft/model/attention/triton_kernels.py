"""Attention inside windows in Triton's language: one kernel forward, one backward.

Shapes as in `window_kernels`; D is d, and windows are cut into tiles of TILE tokens. A program finds the tokens of its
window in the grid by arithmetic, so that neither shift nor windows are ever copied, and keeps scores and weights to
itself. Only the logarithm of every row's sum of exponentials is kept for the backward pass, which computes the weights
anew. Everything is written once and by one program: no order of additions depends on chance.
"""

import triton
import triton.language as tl

from swinft.model.attention.windows import EPS

_EPS = tl.constexpr(EPS)
# Compiled once for all grids: Triton would compile again for a 1, and for multiples of 16.
_GRID = ["height", "width", "shift_rows", "shift_columns", "heads"]


@triton.jit
def _placed(window, token, height, width, shift_rows, shift_columns, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Where tokens of a shifted window lie in their image's grid, counted row by row, and on which side of its edges.

    Tokens of a window are no neighbours but for the shift if it carried one over an edge and the other not: if their
    sides differ, which count 2 for the bottom edge and 1 for the right one.
    """
    across = width // COLUMNS
    row = window // across * ROWS + token // COLUMNS + shift_rows
    column = window % across * COLUMNS + token % COLUMNS + shift_columns
    side = tl.where(row >= height, 2, 0) + tl.where(column >= width, 1, 0)
    row -= tl.where(row >= height, height, 0)
    column -= tl.where(column >= width, width, 0)
    return row * width + column, side


@triton.jit
def _channels(position, part, head, heads, PARTS: tl.constexpr, D: tl.constexpr, PADDED_D: tl.constexpr):
    """Offsets (tokens, PADDED_D) of one head's channels in one of PARTS, from the start of an image."""
    return ((position * PARTS + part) * heads + head)[:, None] * D + tl.arange(0, PADDED_D)[None, :]


@triton.jit
def _inside(token, N: tl.constexpr, D: tl.constexpr, PADDED_D: tl.constexpr):
    """Which of (tokens, PADDED_D) exist, and do not only fill a tile."""
    return (token < N)[:, None] & (tl.arange(0, PADDED_D) < D)[None, :]


@triton.jit
def _unit(x):
    """Unit vectors of rows in fp32, and the rows' lengths."""
    x = x.to(tl.float32)
    norm = tl.maximum(tl.sqrt(tl.sum(x * x, 1)), _EPS)
    return x / norm[:, None], norm


@triton.jit
def _from_unit(grad, unit, norm):
    """Gradient of rows from that of their unit vectors: a step along the row does not turn it."""
    return (grad - unit * tl.sum(grad * unit, 1)[:, None]) / norm[:, None]


@triton.jit
def _queries(qkv, cosine, position, is_inside, head, heads, D: tl.constexpr, PADDED_D: tl.constexpr):
    """Queries as scores need them, their unit vectors and lengths."""
    q = tl.load(qkv + _channels(position, 0, head, heads, 3, D, PADDED_D), mask=is_inside, other=0.0)
    unit, norm = _unit(q)
    if cosine is not None:
        q = (unit * tl.load(cosine + head).to(tl.float32)).to(q.dtype)
    return q, unit, norm


@triton.jit
def _keys(qkv, cosine, position, is_inside, head, heads, D: tl.constexpr, PADDED_D: tl.constexpr):
    """Keys as scores need them, their unit vectors and lengths, and values."""
    k = tl.load(qkv + _channels(position, 1, head, heads, 3, D, PADDED_D), mask=is_inside, other=0.0)
    v = tl.load(qkv + _channels(position, 2, head, heads, 3, D, PADDED_D), mask=is_inside, other=0.0)
    unit, norm = _unit(k)
    if cosine is not None:
        k = unit.to(v.dtype)
    return k, unit, norm, v


@triton.jit
def _results(out, grad, log_sums, position, is_token, is_inside, head, heads, D: tl.constexpr, PADDED_D: tl.constexpr):
    """Of queries, from the forward pass: the gradient of the output, its product with the output, and `log_sums`."""
    at_out = _channels(position, 0, head, heads, 1, D, PADDED_D)
    out_grad = tl.load(grad + at_out, mask=is_inside, other=0.0)
    attended = tl.load(out + at_out, mask=is_inside, other=0.0)
    along = tl.sum(out_grad.to(tl.float32) * attended.to(tl.float32), 1)
    return out_grad, along, tl.load(log_sums + (position * heads + head), mask=is_token, other=0.0)


@triton.jit
def _scores(q, k, bias, query, key, query_side, key_side, scale, PADDED: tl.constexpr, IS_MASKED: tl.constexpr):
    """Scores of pairs of tokens in fp32; `bias` is one head's (PADDED, PADDED)."""
    scores = tl.dot(q, tl.trans(k), input_precision="ieee") * scale
    scores += tl.load(bias + query[:, None] * PADDED + key[None, :])
    if IS_MASKED:
        scores += tl.where(query_side[:, None] == key_side[None, :], 0.0, -100.0)
    return scores


@triton.jit(do_not_specialize=_GRID)
def forward(
    qkv,
    bias,
    cosine,
    out,
    log_sums,
    height,
    width,
    shift_rows,
    shift_columns,
    heads,
    scale,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    D: tl.constexpr,
    PADDED_D: tl.constexpr,
    IS_MASKED: tl.constexpr,
    TILE: tl.constexpr,
):
    """A tile of queries of one window and head, against all keys, one tile after the other."""
    N: tl.constexpr = ROWS * COLUMNS
    TILES: tl.constexpr = (N + TILE - 1) // TILE
    program = tl.program_id(0)
    head = program // TILES % heads
    index = program // TILES // heads
    tokens = height * width
    image, window = (index // (tokens // N)).to(tl.int64), index % (tokens // N)
    qkv += image * (tokens * 3 * heads * D)
    bias += head * (TILES * TILE * TILES * TILE)
    query = program % TILES * TILE + tl.arange(0, TILE)
    at_query, query_side = _placed(window, query, height, width, shift_rows, shift_columns, ROWS, COLUMNS)
    is_query = _inside(query, N, D, PADDED_D)
    q, _, _ = _queries(qkv, cosine, at_query, is_query, head, heads, D, PADDED_D)
    largest = tl.full((TILE,), float("-inf"), tl.float32)
    total = tl.zeros((TILE,), tl.float32)
    attended = tl.zeros((TILE, PADDED_D), tl.float32)
    for tile in range(TILES):
        key = tile * TILE + tl.arange(0, TILE)
        at_key, key_side = _placed(window, key, height, width, shift_rows, shift_columns, ROWS, COLUMNS)
        k, _, _, v = _keys(qkv, cosine, at_key, _inside(key, N, D, PADDED_D), head, heads, D, PADDED_D)
        scores = _scores(q, k, bias, query, key, query_side, key_side, scale, TILES * TILE, IS_MASKED)
        before = largest
        largest = tl.maximum(before, tl.max(scores, 1))
        kept = tl.exp(before - largest)
        weights = tl.exp(scores - largest[:, None])
        total = total * kept + tl.sum(weights, 1)
        attended = attended * kept[:, None] + tl.dot(weights.to(v.dtype), v, input_precision="ieee")
    at_out = image * (tokens * heads * D) + _channels(at_query, 0, head, heads, 1, D, PADDED_D)
    tl.store(out + at_out, (attended / total[:, None]).to(q.dtype), mask=is_query)
    at_row = image * (tokens * heads) + (at_query * heads + head)
    tl.store(log_sums + at_row, largest + tl.log(total), mask=query < N)


@triton.jit(do_not_specialize=["count", "group", *_GRID])
def backward(
    qkv,
    bias,
    cosine,
    out,
    log_sums,
    grad,
    qkv_grad,
    bias_grad,
    cosine_grad,
    count,
    group,
    height,
    width,
    shift_rows,
    shift_columns,
    heads,
    scale,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    D: tl.constexpr,
    PADDED_D: tl.constexpr,
    IS_MASKED: tl.constexpr,
    TILE: tl.constexpr,
    QUERY_STEPS: tl.constexpr,
    KEY_STEPS: tl.constexpr,
):
    """One head of `group` of the `count` windows of all images, one after the other; what is None is not computed.

    A tile of queries and a tile of keys, or all of either, in steps. Gradients of queries need all keys, gradients of
    keys and values all queries; those of bias and scale are added up over the windows into a place for this program.
    """
    N: tl.constexpr = ROWS * COLUMNS
    TILES: tl.constexpr = (N + TILE - 1) // TILE
    QUERY_TILES: tl.constexpr = TILES // QUERY_STEPS
    PLACES: tl.constexpr = QUERY_TILES * (TILES // KEY_STEPS)
    program = tl.program_id(0)
    head = program // PLACES % heads
    first = program // PLACES // heads * group
    bias += head * (TILES * TILE * TILES * TILE)
    query = program % QUERY_TILES * TILE + tl.arange(0, TILE)
    key = program % PLACES // QUERY_TILES * TILE + tl.arange(0, TILE)
    tokens = height * width
    bias_sum = tl.zeros((TILE, TILE), tl.float32)
    cosine_sum = tl.zeros((TILE,), tl.float32)
    for index in range(first, tl.minimum(first + group, count)):
        image, window = (index // (tokens // N)).to(tl.int64), index % (tokens // N)
        inputs = qkv + image * (tokens * 3 * heads * D)
        outputs, output_grads = out + image * (tokens * heads * D), grad + image * (tokens * heads * D)
        sums = log_sums + image * (tokens * heads)
        if QUERY_STEPS == 1:
            at_query, query_side = _placed(window, query, height, width, shift_rows, shift_columns, ROWS, COLUMNS)
            is_query = _inside(query, N, D, PADDED_D)
            q, q_unit, q_norm = _queries(inputs, cosine, at_query, is_query, head, heads, D, PADDED_D)
            out_grad, along, log_sum = _results(
                outputs, output_grads, sums, at_query, query < N, is_query, head, heads, D, PADDED_D
            )
        if KEY_STEPS == 1:
            at_key, key_side = _placed(window, key, height, width, shift_rows, shift_columns, ROWS, COLUMNS)
            is_key = _inside(key, N, D, PADDED_D)
            k, k_unit, k_norm, v = _keys(inputs, cosine, at_key, is_key, head, heads, D, PADDED_D)
        q_grad = tl.zeros((TILE, PADDED_D), tl.float32)
        k_grad = tl.zeros((TILE, PADDED_D), tl.float32)
        v_grad = tl.zeros((TILE, PADDED_D), tl.float32)
        for step in range(QUERY_STEPS * KEY_STEPS):  # one of the two is 1
            if QUERY_STEPS > 1:
                query = step * TILE + tl.arange(0, TILE)
                at_query, query_side = _placed(window, query, height, width, shift_rows, shift_columns, ROWS, COLUMNS)
                is_query = _inside(query, N, D, PADDED_D)
                q, _, _ = _queries(inputs, cosine, at_query, is_query, head, heads, D, PADDED_D)
                out_grad, along, log_sum = _results(
                    outputs, output_grads, sums, at_query, query < N, is_query, head, heads, D, PADDED_D
                )
            if KEY_STEPS > 1:
                key = step * TILE + tl.arange(0, TILE)
                at_key, key_side = _placed(window, key, height, width, shift_rows, shift_columns, ROWS, COLUMNS)
                k, _, _, v = _keys(inputs, cosine, at_key, _inside(key, N, D, PADDED_D), head, heads, D, PADDED_D)
            scores = _scores(q, k, bias, query, key, query_side, key_side, scale, TILES * TILE, IS_MASKED)
            weights = tl.exp(scores - log_sum[:, None])
            scores_grad = weights * (tl.dot(out_grad, tl.trans(v), input_precision="ieee") - along[:, None])
            rounded = scores_grad.to(v.dtype)
            if bias_grad is not None:
                bias_sum += scores_grad
            if qkv_grad is not None and KEY_STEPS == TILES:
                q_grad += tl.dot(rounded, k, input_precision="ieee") * scale
            if qkv_grad is not None and QUERY_STEPS == TILES:
                k_grad += tl.dot(tl.trans(rounded), q, input_precision="ieee") * scale
                v_grad += tl.dot(tl.trans(weights.to(v.dtype)), out_grad, input_precision="ieee")
        if qkv_grad is not None:
            target = qkv_grad + image * (tokens * 3 * heads * D)
            if KEY_STEPS == TILES:
                if cosine is not None:
                    cosine_sum += tl.sum(q_grad * q_unit, 1)
                    q_grad = _from_unit(q_grad * tl.load(cosine + head).to(tl.float32), q_unit, q_norm)
                at_q = _channels(at_query, 0, head, heads, 3, D, PADDED_D)
                tl.store(target + at_q, q_grad.to(qkv_grad.dtype.element_ty), mask=is_query)
            if QUERY_STEPS == TILES:
                if cosine is not None:
                    k_grad = _from_unit(k_grad, k_unit, k_norm)
                at_k = _channels(at_key, 1, head, heads, 3, D, PADDED_D)
                tl.store(target + at_k, k_grad.to(qkv_grad.dtype.element_ty), mask=is_key)
                at_v = _channels(at_key, 2, head, heads, 3, D, PADDED_D)
                tl.store(target + at_v, v_grad.to(qkv_grad.dtype.element_ty), mask=is_key)
    if bias_grad is not None:
        at_pair = ((program // PLACES).to(tl.int64) * N + query[:, None]) * N + key[None, :]
        tl.store(bias_grad + at_pair, bias_sum, mask=(query < N)[:, None] & (key < N)[None, :])
    if cosine_grad is not None:
        tl.store(cosine_grad + program, tl.sum(cosine_sum, 0))
