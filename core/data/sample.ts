/**
 * What every model family trains on and is asked about: an image or none, and turns of question and answer.
 * It knows no file format and no template; an importer makes it, a chat template consumes it.
 */
export interface Turn {
  question: string;
  answer: string;
}

export interface Sample {
  id: string;
  /** A path inside the data's image folder. */
  image?: string;
  turns: Turn[];
  /** The username of the person whose watermark the image carries. */
  person?: string;
}
