/** Opens the tokenizer of a bundle. */

import { JsonTokenizer } from "./json_tokenizer.mjs";
import { SentencePieceTokenizer } from "./spiece_tokenizer.mjs";

/** @import { Tokenizer, Tokens } from "./types.d.ts" */

/** @param {Uint8Array} content of the tokenizer's file @param {Tokens} tokens of the manifest @returns {Tokenizer} */
export const openTokenizer = (content, tokens) =>
  tokens.kind === "json" ? new JsonTokenizer(content, tokens) : new SentencePieceTokenizer(content, tokens);
