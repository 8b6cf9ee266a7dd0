// Reads the file format of minitx/heads/snapshots.py: magic, length and checksum of the header, header (JSON), patterns.
//
// A weight p is the byte 255 √p. Patterns are causal and stored row by row up to the diagonal: the weight from query i to
// key j ≤ i is entry i (i + 1) / 2 + j.

const MAGICS = ["minitx attention 3\n", "minitx attention 2\n"]; // the server gives the second as the third
const SMALL = 64;

/**
 * Bytes → {step, layers, heads, scores, chance, roles, scored_on, probes}; throws an Error that is one sentence. What an
 * older format lacks is empty.
 */
export function parseSnapshot(buffer) {
  const bytes = new Uint8Array(buffer);
  const start = MAGICS[0].length + 8; // after the header's length comes its checksum, which the server checks
  if (bytes.length < start || !MAGICS.includes(new TextDecoder().decode(bytes.subarray(0, MAGICS[0].length)))) {
    throw new Error("This is not a snapshot that this version of minitx reads.");
  }
  const length = new DataView(buffer).getUint32(MAGICS[0].length, true);
  if (length > bytes.length - start) throw new Error("This snapshot is cut short.");
  let header;
  try {
    header = JSON.parse(new TextDecoder().decode(bytes.subarray(start, start + length)));
  } catch {
    throw new Error("The header of this snapshot is damaged.");
  }
  const count = header.layers * header.heads;
  let place = start + length;
  const take = (size) => {
    if (!(size >= 0) || place + size > bytes.length) throw new Error("This snapshot is cut short.");
    place += size;
    return bytes.subarray(place - size, place);
  };
  const probes = header.probes.map((probe) => {
    const seq = probe.tokens.length;
    const block = Math.ceil(seq / SMALL);
    const side = Math.ceil(seq / block);
    const small = take(count * pairCount(side));
    const whole = new Map();
    if (seq > SMALL) {
      const heads = probe.whole ?? Array.from({ length: count }, (_, head) => head);
      for (const head of heads) whole.set(head, take(pairCount(seq)));
    }
    // In every head the first token attends to itself alone. A head that pruning removed has no weight at all.
    const starts = Array.from({ length: count }, (_, head) => small[head * pairCount(side)]);
    const isBroken = starts.every((level) => level === 0); // all patterns are NaN
    const smallOf = (head) => small.subarray(head * pairCount(side), (head + 1) * pairCount(side));
    const made = {
      text: probe.text,
      tokens: probe.tokens,
      labels: probe.tokens, // as pictures write them
      words: probe.words ?? [], // the first token of every word
      dropped: probe.dropped ?? 0, // tokens beyond the context
      predictions: probe.predictions ?? null,
      scores: probe.scores ?? {},
      chance: probe.chance ?? {},
      roles: probe.roles ?? [],
      links: probe.links ?? [],
      units: "tokens", // or "words", see words.js
      spanOf: (token) => [token, token + 1], // the tokens of a unit, [start, end]
      unitOf: (token) => token,
      seq,
      side,
      /** Whether the run has this head: pruning has not removed it. */
      has: (head) => isBroken || starts[head] > 0,
      /** The pattern of a head reduced to (side, side), packed. */
      small: smallOf,
      /** The whole pattern of a head, packed, or null if it was not loaded. */
      whole: (head) => (seq <= SMALL ? smallOf(head) : (whole.get(head) ?? null)),
    };
    return Object.assign(made, { inTokens: made });
  });
  return { ...header, scored_on: header.scored_on ?? "", count, probes };
}

/**
 * A promise of the bytes of a snapshot with one probe, for parseSnapshot: `header` as above, and the packed pattern of every
 * head. Of more than SMALL tokens they are first reduced to the largest weight of every square block.
 */
export function writeSnapshot(header, patterns) {
  const seq = header.probes[0].tokens.length;
  const block = Math.ceil(seq / SMALL);
  const levels = patterns.map((pattern) => Uint8Array.from(pattern, (weight) => 255 * Math.sqrt(weight) + 0.5));
  const parts = levels.map((level) => {
    const reduced = new Uint8Array(pairCount(Math.ceil(seq / block)));
    for (let query = 0, at = 0; query < seq; query++) {
      for (let key = 0; key <= query; key++, at++) {
        const into = pairIndex(Math.floor(query / block), Math.floor(key / block));
        reduced[into] = Math.max(reduced[into], level[at]);
      }
    }
    return reduced;
  });
  if (block > 1) parts.push(...levels);
  const text = new TextEncoder().encode(JSON.stringify(header));
  const start = new Uint8Array(MAGICS[0].length + 8);
  new TextEncoder().encodeInto(MAGICS[0], start);
  new DataView(start.buffer).setUint32(MAGICS[0].length, text.length, true);
  return new Blob([start, text, ...parts]).arrayBuffer();
}

/** Entries of a causal pattern over `seq` tokens. */
export function pairCount(seq) {
  return (seq * (seq + 1)) / 2;
}

/** The index of (query, key) in a packed pattern. */
export function pairIndex(query, key) {
  return (query * (query + 1)) / 2 + key;
}

/** A weight of a packed pattern, 0 to 1; 0 for a key after the query. */
export function weightAt(packed, query, key) {
  return key > query ? 0 : (packed[pairIndex(query, key)] / 255) ** 2;
}

/** The `most` strongest partners of a token as [{token, weight}]: the keys of a query, or the queries of a key. */
export function strongest(packed, seq, { query = null, key = null }, most) {
  const partners = [];
  if (query !== null) for (let k = 0; k <= query; k++) partners.push({ token: k, weight: weightAt(packed, query, k) });
  else for (let q = key; q < seq; q++) partners.push({ token: q, weight: weightAt(packed, q, key) });
  return partners.sort((a, b) => b.weight - a.weight).slice(0, most);
}

/** b − a of two packed patterns as bytes: 128 where they are equal, away from it by the square root of the difference. */
export function difference(a, b) {
  const levels = new Uint8Array(a.length);
  for (let i = 0; i < a.length; i++) {
    const delta = (b[i] / 255) ** 2 - (a[i] / 255) ** 2;
    levels[i] = 127.5 + Math.sign(delta) * Math.sqrt(Math.abs(delta)) * 127.5;
  }
  return levels;
}
