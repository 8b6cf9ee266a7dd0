// Text to token ids with SentencePiece's two methods, as minitx/data/tokenizer.py has it encode.

const SPACE = "▁"; // how SentencePiece writes a space inside a token; in a text it becomes byte tokens
const UNKNOWN = 10; // an unknown character scores this much less than the least token

/** A tokenizer of `data`, {kind, pieces, scores, alone, bytes, labels}; see minitx/interop/model_page.py. */
export function createTokenizer({ kind, pieces, scores, alone, bytes, labels }) {
  const ids = new Map(pieces.flatMap((piece, id) => (piece === null ? [] : [[piece, id]])));
  const longest = [...ids.keys()].reduce((most, piece) => Math.max(most, [...piece].length), 1);
  const least = scores.reduce((a, b) => Math.min(a, b));
  const byteOf = new Map(bytes.map((id, byte) => [id, byte]));
  const toBytes = new TextEncoder();
  const split = kind === "unigram" ? bestSplit : merged;

  const asBytes = (text) => [...toBytes.encode(text)].map((byte) => bytes[byte]);

  /** The tokens of `text`; an Error that is one sentence for a lone surrogate. */
  function encode(text) {
    if (/\p{Surrogate}/u.test(text)) throw new Error("The text holds a lone surrogate, which is not valid Unicode: take it out.");
    return text.split(SPACE).flatMap((part, place) => {
      const found = split([...part.replaceAll(" ", SPACE)]).flatMap((piece) => ids.get(piece) ?? asBytes(piece));
      return place ? [...asBytes(SPACE), ...found] : found;
    });
  }

  /** Unigram: the split with the greatest sum of scores (Viterbi); of equal ones, that whose last token is longest. */
  function bestSplit(characters) {
    const best = [{ score: 0, start: 0 }];
    for (let start = 0; start < characters.length; start++) {
      for (let end = start + 1, piece = ""; end <= Math.min(start + longest, characters.length); end++) {
        piece += characters[end - 1];
        const id = ids.get(piece);
        if (id === undefined && end > start + 1) continue;
        const score = best[start].score + (id === undefined ? least - UNKNOWN : scores[id]);
        if (!best[end] || score > best[end].score) best[end] = { score, start };
      }
    }
    const found = [];
    for (let end = characters.length; end > 0; end = best[end].start) found.unshift(characters.slice(best[end].start, end).join(""));
    return found;
  }

  /** BPE: again and again the two neighbours whose token has the highest score become one, of equal ones the leftmost. */
  function merged(characters) {
    const parts = [...characters];
    const scoreAt = (place) => {
      const id = alone.includes(parts[place]) || alone.includes(parts[place + 1]) ? undefined : ids.get(parts[place] + parts[place + 1]);
      return id === undefined ? -Infinity : scores[id];
    };
    const joined = parts.slice(1).map((_, place) => scoreAt(place));
    for (;;) {
      let place = -1;
      for (let at = 0; at < joined.length; at++) if (joined[at] > (joined[place] ?? -Infinity)) place = at;
      if (place < 0) return parts;
      parts.splice(place, 2, parts[place] + parts[place + 1]);
      joined.splice(place, 1);
      for (const at of [place - 1, place]) if (at >= 0 && at < joined.length) joined[at] = scoreAt(at);
    }
  }

  const bytesOf = (id) => (byteOf.has(id) ? [byteOf.get(id)] : [...toBytes.encode(pieces[id].replaceAll(SPACE, " "))]);

  return { encode, bytesOf, labelOf: (id) => labels[id] };
}
