// The forward pass of minitx/model.py in plain JavaScript: tokens in, logits out, each head within reach.
//
// Matrices lie row by row, (out, in), as PyTorch keeps them; a text is (seq, width).

/** A model of `data`, {config, names: [[name, numbers]], weights: base64 of float16}; see minitx/interop/model_page.py. */
export function createModel({ config, names, weights }) {
  const numbers = unpackHalves(weights);
  const [parameters, width] = [new Map(), config.d_head / 2];
  let place = 0;
  for (const [name, count] of names) parameters.set(name, numbers.subarray(place, (place += count)));
  const angles = Float32Array.from({ length: config.context_length * width }, (_, at) => Math.floor(at / width) * config.rope_theta ** (-(at % width) / width));
  const weight = (name) => parameters.get(`${name}.weight`) ?? null;
  return { config, weight, cos: angles.map(Math.cos), sin: angles.map(Math.sin) };
}

/** Float16 numbers, little-endian, in base64 → Float32Array. */
function unpackHalves(text) {
  const bytes = atob(text);
  const table = Float32Array.from({ length: 1 << 16 }, (_, bits) => {
    const [exponent, fraction] = [(bits >> 10) & 31, bits & 1023];
    return (bits >> 15 ? -1 : 1) * (exponent ? 2 ** (exponent - 25) * (1024 + fraction) : 2 ** -24 * fraction);
  });
  return Float32Array.from({ length: bytes.length / 2 }, (_, at) => table[bytes.charCodeAt(2 * at) | (bytes.charCodeAt(2 * at + 1) << 8)]);
}

/** The embeddings (seq, d_model) of `tokens`. */
export function embed({ config: { d_model }, weight }, tokens) {
  const [table, residual] = [weight("embedding"), new Float32Array(tokens.length * d_model)];
  for (const [at, token] of tokens.entries()) residual.set(table.subarray(token * d_model, (token + 1) * d_model), at * d_model);
  return residual;
}

/**
 * The residual (seq, d_model) after the blocks from `first` to before `end`. `off` are heads (layer * heads + head) that
 * write nothing, or their vector (d_head) of the map `standIn`. `record(head, pattern, outputs)` gets each head's packed
 * pattern and its outputs (seq, heads * d_head) beside those of its layer.
 */
export function throughBlocks(model, before, { first = 0, end = model.config.n_layer, off = [], standIn = null, record = null } = {}) {
  const { config, weight } = model;
  const residual = before.slice();
  const add = (change) => change.forEach((value, at) => (residual[at] += value));
  for (let layer = first; layer < end; layer++) {
    const of = (name) => weight(`blocks.${layer}.${name}`);
    add(attend(model, layer, normalised(residual, of("attention_norm"), config.norm_eps), { off, standIn, record }));
    const x = normalised(residual, of("feed_forward_norm"), config.norm_eps);
    const [gate, up] = ["gate", "up"].map((name) => product(x, of(`feed_forward.${name}`), config.d_model));
    add(product(gate.map((value, at) => (value / (1 + Math.exp(-value))) * up[at]), of("feed_forward.down"), config.d_ff));
  }
  return residual;
}

/** Logits (seq, vocab_size) from the residual after the last block. */
export function unembed({ config, weight }, residual) {
  return product(normalised(residual, weight("final_norm"), config.norm_eps), weight("output") ?? weight("embedding"), config.d_model);
}

/** x (seq, inner) times the transpose of `matrix` (outer, inner). */
function product(x, matrix, inner) {
  const [seq, outer] = [x.length / inner, matrix.length / inner];
  const result = new Float32Array(seq * outer);
  for (let row = 0; row < outer; row++) {
    const start = row * inner;
    for (let at = 0; at < seq; at++) result[at * outer + row] = dot(matrix, start, x, at * inner, inner);
  }
  return result;
}

/** Four sums side by side, which a processor adds at once. */
function dot(a, aStart, b, bStart, count) {
  let [s, t, u, v, i] = [0, 0, 0, 0, 0];
  for (; i + 3 < count; i += 4) {
    s += a[aStart + i] * b[bStart + i];
    t += a[aStart + i + 1] * b[bStart + i + 1];
    u += a[aStart + i + 2] * b[bStart + i + 2];
    v += a[aStart + i + 3] * b[bStart + i + 3];
  }
  for (; i < count; i++) s += a[aStart + i] * b[bStart + i];
  return s + t + u + v;
}

/** RMSNorm: every vector of x, of the scale's length, divided by its root mean square and scaled. */
function normalised(x, scale, eps) {
  const width = scale.length;
  const result = new Float32Array(x.length);
  for (let start = 0; start < x.length; start += width) {
    const inverse = 1 / Math.sqrt(dot(x, start, x, start, width) / width + eps);
    for (let i = 0; i < width; i++) result[start + i] = x[start + i] * inverse * scale[i];
  }
  return result;
}

/** Turn the vectors of x (seq, heads * d_head) in place by their positions, halves together. */
function rotate(x, seq, { config: { d_head }, cos, sin }) {
  const [width, half] = [x.length / seq, d_head / 2];
  for (let start = 0; start < x.length; start += d_head) {
    const angle = Math.floor(start / width) * half;
    for (let i = 0; i < half; i++) {
      const [a, b, c, s] = [x[start + i], x[start + half + i], cos[angle + i], sin[angle + i]];
      x[start + i] = a * c - b * s;
      x[start + half + i] = b * c + a * s;
    }
  }
}

/** What the heads of a layer write together, (seq, d_model), from the normalised residual. */
function attend(model, layer, x, { off, standIn, record }) {
  const { d_model, d_head, n_head, n_kv_head, norm_eps } = model.config;
  const of = (name) => model.weight(`blocks.${layer}.attention.${name}`);
  const seq = x.length / d_model;
  let [query, key, value] = ["query", "key", "value"].map((name) => product(x, of(name), d_model));
  if (of("query_norm")) [query, key] = [normalised(query, of("query_norm"), norm_eps), normalised(key, of("key_norm"), norm_eps)];
  rotate(query, seq, model);
  rotate(key, seq, model);
  const [width, kvWidth] = [n_head * d_head, n_kv_head * d_head];
  const outputs = new Float32Array(seq * width);
  for (let head = 0; head < n_head; head++) {
    const [start, kvStart] = [head * d_head, Math.floor((head * n_kv_head) / n_head) * d_head];
    const pattern = new Float32Array((seq * (seq + 1)) / 2); // packed: row by row up to the diagonal
    for (let at = 0, row = 0; at < seq; row += ++at) {
      const weights = pattern.subarray(row, row + at + 1);
      for (let from = 0; from <= at; from++) weights[from] = dot(query, at * width + start, key, from * kvWidth + kvStart, d_head) / Math.sqrt(d_head);
      softmax(weights);
      for (let from = 0; from <= at; from++) {
        for (let i = 0; i < d_head; i++) outputs[at * width + start + i] += weights[from] * value[from * kvWidth + kvStart + i];
      }
    }
    const flat = layer * n_head + head;
    if (off.includes(flat)) {
      const instead = standIn?.get(flat) ?? new Float32Array(d_head);
      for (let at = 0; at < seq; at++) outputs.set(instead, at * width + start);
    }
    record?.(flat, pattern, outputs);
  }
  return product(outputs, of("output"), width);
}

function softmax(row) {
  const most = row.reduce((a, b) => Math.max(a, b));
  let sum = 0;
  for (let i = 0; i < row.length; i++) sum += row[i] = Math.exp(row[i] - most);
  for (let i = 0; i < row.length; i++) row[i] /= sum;
}
