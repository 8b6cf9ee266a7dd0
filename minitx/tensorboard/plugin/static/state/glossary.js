// The field's words that the tab uses, each explained once: shown on hover and in the help.

/** Each word with its meaning. */
export const GLOSSARY = {
  token: "a piece of the text that the model reads at once: a word, a part of one, or a character",
  pattern: "the weights of a head: how much each token, the query, attends to each token up to it, the keys; a row adds up to 1",
  "uniform attention": "attention spread evenly over all tokens up to the query's own: what a head does that has learned nothing",
  "attention sink": "the first token, where heads with nothing to do rest their attention",
  role: "the score that stands furthest above uniform attention, where it takes at least half of what is left above it",
  unclassified: "no score takes half of the attention that is left above uniform attention",
  "in tales": "up to three kinds of relationship in held-out tales, where the word that decides the next one gets at least half of the attention left above uniform",
  "labelled link": "a place of the text where the right word to attend to is known, such as what “it” stands for",
  nats: "the unit of entropy and of loss: a probability p costs −ln p nats; 1 nat is 1.44 bits",
};

/** The meaning of the role a head has, with the word itself. */
export function roleMeaning(role) {
  return `Role: ${GLOSSARY.role}.${role === "unclassified" ? ` Unclassified: ${GLOSSARY.unclassified}.` : ""}`;
}
