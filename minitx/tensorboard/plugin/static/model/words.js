// Words of a text that is cut into tokens, and a label for every token, as minitx/data/words.py finds them.

const WORD = / ?(?:w[wm]*(?:jw[wm]*)*|[cjpm]m*(?:zpm*)*)|./gs;
const IDEOGRAPH = /[々-〇\u3040-ヿ㐀-䶿一-鿿豈-\ufaff\u{20000}-\u{3ffff}]/u;
const SYMBOLS = { "\n": "↵", "\t": "⇥", "\r": "␍", " ": "␣", "▁": "␣" };
const PART = "·"; // a byte token before the last one of a character
const BROKEN = "�"; // stands for a byte of no character

/** The characters that `bytes` are, each with its size in bytes; a character that is cut off counts byte by byte. */
function charactersOf(bytes) {
  const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
  const found = [];
  for (let at = 0; at < bytes.length; at += found.at(-1).size) {
    const size = 1 + [0xc0, 0xe0, 0xf0].filter((lead) => bytes[at] >= lead).length;
    try {
      found.push({ character: decoder.decode(Uint8Array.from(bytes.slice(at, at + size))), size });
    } catch {
      found.push({ character: BROKEN, size: 1 });
    }
  }
  return found;
}

/** A label for each of `tokens`. */
export function labelsOf({ bytesOf, labelOf }, tokens) {
  const labels = [];
  while (labels.length < tokens.length) {
    const [token] = tokens.slice(labels.length);
    const [lead, ...others] = bytesOf(token);
    const size = others.length ? 1 : 1 + [0xc0, 0xe0, 0xf0].filter((one) => lead >= one).length;
    const whole = charactersOf(tokens.slice(labels.length, labels.length + size).flatMap(bytesOf));
    if (size === 1 || whole.length > 1 || whole[0].size < size) labels.push(labelOf(token));
    else labels.push(...Array(size - 1).fill(PART), labelOfCharacter(whole[0].character));
  }
  return labels;
}

function labelOfCharacter(character) {
  if (SYMBOLS[character]) return SYMBOLS[character];
  if (!/[\p{C}\p{Z}]/u.test(character)) return character;
  const code = character.codePointAt(0);
  const [sign, digits] = code < 0x100 ? ["x", 2] : code < 0x10000 ? ["u", 4] : ["U", 8];
  return `\\${sign}${code.toString(16).padStart(digits, "0")}`;
}

/** The first token of every word. A token belongs to the word of its first byte that is no space. */
export function wordStarts({ bytesOf }, tokens) {
  const pieces = tokens.map(bytesOf);
  const characters = charactersOf(pieces.flat());
  const wordOfByte = [];
  let place = 0;
  for (const [number, [word]] of [...characters.map(({ character }) => kindOf(character)).join("").matchAll(WORD)].entries()) {
    for (const { size } of characters.slice(place, (place += word.length))) for (let byte = 0; byte < size; byte++) wordOfByte.push(number);
  }
  let start = 0;
  const words = pieces.map((piece) => {
    const inner = piece.findIndex((byte) => byte !== 32);
    const word = wordOfByte[start + Math.max(0, inner)];
    start += piece.length;
    return word;
  });
  return [...words.keys()].filter((at) => at === 0 || words[at] !== words[at - 1]);
}

/** w of words, c Chinese or Japanese, m mark, z joiner of emoji, j of "don't" and "well-known", p other; white space. */
function kindOf(character) {
  if (character === " ") return " ";
  if (character === "\u200d") return "z";
  if ("'’-".includes(character)) return "j";
  if (/[\t-\r\x1c-\x1f\x85\p{Z}]/u.test(character)) return "\n";
  if (IDEOGRAPH.test(character)) return "c";
  if (/[\p{M}\u{1f3fb}-\u{1f3ff}]/u.test(character)) return "m";
  return /[\p{L}\p{N}_]/u.test(character) ? "w" : "p";
}
