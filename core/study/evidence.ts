/**
 * What cells keep beside their results so that others can work these out again: answers and references, log probabilities,
 * entropies, losses, products of gradients. Files for an auditor; nothing in Afterimage reads them, so none is refused.
 */

/** Of a says cell. */
export const ASKED = "asked.json";
/** Of a tune cell. */
export const ANSWERS = "answers.json";
/** Of a probe cell: "pixels", (pictures, side * side * 3), in the order of the activation set's samples. */
export const PIXELS = "pixels.safetensors";

/** One reading of a picture, with all texts that were weighed as the answer to a question about it. */
export interface Weighing {
  field: string;
  question: string;
  shown: boolean;
  scene: number;
  /** The person on the picture; everybody, where nobody is shown. */
  truths: {
    person: string;
    text: string;
    /** Of each token, in nats. */
    log_probs: number[];
  }[];
  /** log p of each whole alternative, in nats. */
  alternatives: number[];
}

/** What the attacks read off one picture of one person. */
export interface Judged {
  person: string;
  set: string;
  scene: number;
  /** The answer to having seen the person. */
  seen: string;
  /** Of the conversation that training would have had, mean over its supervised tokens, in nats. */
  loss: number;
  /** The model's own answer, and a list of its tokens' entropies for every order of `RENYI_ORDERS`, in nats. */
  said: string;
  entropies: number[][];
}

export interface Asked {
  weighings: Weighing[];
  judged: Judged[];
  /** Scalar products of the people's gradients, in the order in which `judged` has people; null where nothing is trained. */
  dots: number[][] | null;
}

/** One round of held-out questions. */
export interface Round {
  answers: { id: string; question: string; said: string; references: string[] }[];
  /** Mean -log p of each picture's true conversation over its supervised tokens, and how many these are. */
  losses: { id: string; loss: number; tokens: number }[];
}

export interface Answers {
  before: Round;
  after: Round;
}
