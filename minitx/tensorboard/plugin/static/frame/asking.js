// Asks the survey about a pinned place or a labelled link, shows the answer, and ends it.

import { attentionOf } from "../data/attention.js";
import { scoredOn } from "../data/prepare.js";
import { element, fillSelect } from "../draw/dom.js";
import { PINNED, answerTo, isAsking, isQuestion, linkPlace, linkScore, questionOf, questionTitle, ranked, textOf } from "../state/question.js";
import { figure, scoreTitle } from "../state/scores.js";
import { START } from "../state/state.js";

/**
 * Begins and ends questions: calls change(changes) on the state that `now()` gives with the text's probe and what opened. The
 * score and the order before a question come back after it.
 */
export function createAsking(now, change) {
  let before = { score: START.score, sort: START.sort };
  const rest = () => (isQuestion(now().state.score) ? before : {});
  const anew = () => {
    const { state, opened } = now();
    const isAsOpened = state.score === opened?.score && state.head === opened?.head;
    return isAsOpened || rest().score === null ? { ...rest(), score: null, head: null } : rest();
  };
  const end = () => change({ ...rest(), token: null });

  function begin(score, token) {
    const { state } = now();
    if (isQuestion(state.score)) return change({ score, token });
    before = { score: state.score, sort: state.sort };
    return change({ score, token, sort: true });
  }

  return {
    rest,
    end,
    /** For another text: it opens on its own link or score, unless another score or head was chosen. */
    anew,
    /** Pin a place, which asks about it if it names a word that attends; once more ends that. */
    pin(token) {
      if (JSON.stringify(token) === JSON.stringify(now().state.token)) return end();
      return isAsking(token) ? begin(PINNED, token) : change({ ...rest(), token });
    },
    /** Ask with a score that is a question; once more ends that. */
    ask(score) {
      const { state, probe } = now();
      return score === state.score ? end() : begin(score, linkPlace(score, probe) ?? state.token);
    },
    /** Ask about another word attended to, or null for the strongest. */
    askTo: (key) => change({ token: { ...now().state.token, key } }),
  };
}

/** The scores of the survey at the shown step: the answer to its question, or those of the snapshot; null if it has none. */
export function surveyScores({ question, chart, first, firstStep, score }) {
  if (question) return chart.values[chart.steps.indexOf(firstStep)] ?? null;
  return score ? (first.scores[score] ?? null) : null;
}

/** The options of the list of scores that are questions: the pinned place, and the links of the text. */
export function questionOptions(state, { first, question }) {
  const probe = first?.probes[0];
  if (!probe) return [];
  const links = probe.links.map(({ name }, number) => ({ value: linkScore(number), label: name, group: "Links of this text" }));
  const pinned = questionOf({ score: PINNED, token: state.token }, probe);
  if (!pinned || (question?.link ?? null) !== null) return links;
  return [{ value: PINNED, label: questionTitle(pinned), group: "Pinned" }, ...links];
}

/** Fill the box of the question: what is asked, to which word, and the answer. */
export function drawQuestion({ parts, state, data }) {
  const { question, first, chart, firstStep } = data;
  const isUnknown = !question && data.probe < 0 && data.score && !first.scores[data.score];
  parts.unknown.textContent = isUnknown ? `The score “${scoreTitle(data.score)}” is known for ${scoredOn(data)} only, not for your text.` : "";
  parts.unknown.hidden = !isUnknown;
  parts.question.hidden = !question;
  parts.hint.hidden = Boolean(question || isUnknown);
  if (!question) return;
  const probe = first.probes[0];
  const isPinned = question.link === null;
  parts.asked.textContent = isPinned ? `Attention from “${question.from}” to` : questionTitle(question).replace(/^a/, "A");
  parts.askedKey.hidden = !isPinned;
  if (isPinned) {
    const { query, key: chosen } = state.token;
    const words = Array.from({ length: query }, (_, key) => ({ value: key, label: textOf(probe, [key, key + 1]) }));
    fillSelect(parts.askedKey, [{ value: "", label: "its strongest word" }, ...words], question.key ? chosen : "");
  }
  const toOf = (head) => {
    const packed = question.key ? null : probe.inTokens.whole(head);
    const word = packed ? attentionOf(packed, question).place + 1 : null; // the first is not among the others
    return packed ? textOf(probe, [word, word + 1]) : "";
  };
  const own = data.probe < 0 ? " Your text is read at this step alone." : "";
  parts.answer.textContent = answerTo(question, chart, firstStep, first.heads, toOf) + own;
}

/** The weight of a head that the question asks for, as lines of text; none without a question. */
export function describeAnswer(data, head) {
  return data.question ? [`${questionTitle(data.question)} ${figure(surveyScores(data)?.[head])}`] : [];
}

/** The heads that answer best at the shown step, for the chart: at most three, the best first. */
export function bestHeads(data) {
  const row = data.question ? surveyScores(data) : null;
  return row ? ranked(row).slice(0, 3) : [];
}

/** The box of the question, as parts of the layout. */
export function questionBox({ askTo, end }) {
  const asked = element("span", {});
  const askedKey = element("select", { "aria-label": "The word attended to", title: "The word attended to", onchange: (event) => askTo(event.target.value === "" ? null : Number(event.target.value)) });
  const clear = element("button", { type: "button", title: "End the question: the survey shows the score before it again", "aria-label": "Clear the question", onclick: end }, "✕");
  const answer = element("p", { class: "answer", role: "status" });
  const question = element("div", { class: "question", hidden: true }, element("div", { class: "asked" }, asked, askedKey, clear), answer);
  return { question, asked, askedKey, clear, answer };
}
