/** What the engine reads of a bundle's manifest, issun.json; see runtime/manifest.py. */
export interface Manifest {
  architecture: {
    n_layer: number;
    n_head: number;
    n_kv_head?: number; // absent in format 1: n_head
    kv_head_dim: number;
    n_positions: number;
    vocab_size: number;
  };
  tokens: Tokens;
  prompt: Template | JinjaTemplate;
  sampling: Partial<Params>;
}

export interface Tokens {
  kind?: "t5" | "llama" | "json"; // absent: t5
  file: string;
  pieces: number;
  do_lower_case: boolean;
  special: Record<string, number>;
  added?: Record<string, { id: number; special?: boolean }>;
  eos: number | null;
  unk: number | null;
  ends?: number[];
}

export interface Template {
  kind?: "slots"; // absent in format 1
  with_input: string;
  newline: string;
  chat: {
    role_line: string;
    history_separator: string;
    user: string;
    assistant: string;
    empty_instruction: string;
    system: string[];
    reserve: number;
    prompt?: string;
    dropped?: string;
  };
}

export interface JinjaTemplate {
  kind: "jinja";
  source: string;
  variables: Record<string, string | boolean>;
  takes_system: boolean;
  newline: string;
  reserve: number;
}

/** What the engine needs of @huggingface/jinja. */
export interface Jinja {
  Template: new (source: string) => { render(values: Record<string, unknown>): string };
}

/** Text to ids and back; what a user writes never becomes a control token. */
export interface Tokenizer {
  /** Whether tokens are bytes, and may begin and end within a character. */
  byteLevel: boolean;
  /** Whether invalid UTF-8 in a run of byte pieces makes the whole run U+FFFD. */
  wholeRuns: boolean;
  /** The ids of added tokens that are not pieces of the vocabulary. */
  addedIds: Set<number>;
  split(text: string): (string | number)[];
  encode(text: string): number[];
  encodeParts(parts: (string | number)[]): number[];
  decode(ids: number[]): string;
  /** The spelling of a control token. */
  nameOf(id: number): string;
  /** Whether a token is one byte of a character (byte fallback). */
  isByte(id: number): boolean;
  /** The bytes that a token adds to a text (byte-level tokenizers). */
  textOf(id: number): Uint8Array;
}

/** What the engine reads of a tokenizer.json. */
export interface TokenizerJson {
  model: {
    vocab: Record<string, number> | [string, number][]; // of BPE, or of Unigram with scores
    merges?: [string, string][];
    ignore_merges?: boolean;
    byte_fallback?: boolean;
  };
  normalizer: object | null;
  pre_tokenizer: { pretokenizers?: { pattern: { Regex: string } }[] } | null;
  added_tokens: AddedToken[];
}

export interface AddedToken {
  id: number;
  content: string;
  normalized: boolean;
}

/** A kind of template; `reserve` is the number of tokens to keep free for the answer. */
export interface PromptFormat {
  reserve: number;
  ids(dialogue: Dialogue, dropped?: number): number[];
}

/** The sampling parameters, with the names and the meaning of SamplingParams in Python. */
export interface Params {
  temperature: number;
  top_k: number;
  top_p: number;
  min_p: number;
  typical_p: number;
  repetition_penalty: number;
  presence_penalty: number;
  frequency_penalty: number;
  no_repeat_ngram_size: number;
  logit_bias: Record<string, number>;
  banned_ids: number[] | null;
  banned_first_ids: number[];
  banned_sequences: number[][];
  min_length: number;
  min_new_tokens: number;
  max_new_tokens: number;
  stop: string[];
  seed: number | null;
}

export interface Message {
  role: string;
  content: string;
}

export interface Dialogue {
  system: string;
  turns: Turn[];
  message: string;
  beginning: string;
}

export interface Turn {
  message: string;
  reply: string;
}

/** Ids of a prompt; its last `continued` ids are the given beginning of the answer. */
export interface Prompt {
  ids: number[];
  dropped: number;
  continued: number;
}

/** Text that one token completes; the last segment has a finish reason. */
export interface Segment {
  text: string;
  id: number;
  reason: "stop" | "length" | null;
}

/** An array for a graph's input: its type, values and shape. */
export type Feed = [type: "int64" | "int32", values: BigInt64Array | Int32Array, shape: number[]];

/** Runs the graph over one sequence's keys and values, which it owns. */
export interface Cache {
  /** The logits of one row, (vocab,), after the new rows were appended at `past`. */
  run(feeds: Record<string, Feed>, past: number): Promise<Float32Array>;
  close(): void;
}

/** What the engine needs of onnxruntime-web and onnxruntime-node. */
export interface Ort {
  Tensor: new (type: string, data: unknown, dims: readonly number[]) => OrtTensor;
  InferenceSession: { create(model: unknown, options?: unknown): Promise<Session> };
}

export interface OrtTensor {
  readonly data: unknown;
  readonly dims: readonly number[];
}

export interface Session {
  readonly inputNames: readonly string[];
  readonly inputMetadata: readonly { name: string; type?: string }[];
  run(feeds: Record<string, OrtTensor>): Promise<Record<string, OrtTensor>>;
}

/** The parts of Emscripten's module of onnxruntime-web that the pointer-bound cache calls. */
export interface Wasm {
  HEAPU8: Uint8Array;
  _malloc(size: number): number;
  _free(at: number): void;
  _OrtCreateTensor(type: number, at: number, size: number, shape: number, rank: number, location: number): number;
  _OrtReleaseTensor(handle: number): void;
  _OrtRun(
    session: number,
    inputNames: number,
    inputs: number,
    numInputs: number,
    outputNames: number,
    numOutputs: number,
    outputs: number,
    options: number,
  ): number | Promise<number>;
  _OrtGetLastError(code: number, message: number): void;
  stackSave(): number;
  stackRestore(at: number): void;
  stackAlloc(size: number): number;
  getValue(at: number, type: string): number;
  setValue(at: number, value: number, type: string): void;
  lengthBytesUTF8(text: string): number;
  stringToUTF8(text: string, at: number, size: number): void;
  UTF8ToString(at: number): string;
}

/** site.json: what the site holds, with addresses relative to it. */
export interface Site {
  name: string;
  precision: string;
  demonstration: boolean;
  version: string;
  manifest: string;
  tokenizer: string;
  jinja: string | null; // the module @huggingface/jinja, if the bundle needs it
  graph: string;
  weights: Weights;
}

/** A large file: SHA-256 of all of it and of each part of `part_size` bytes. */
export interface Weights {
  path: string;
  name: string;
  size: number;
  sha256: string;
  part_size: number;
  parts: string[];
}

/** The page's request to the worker, and what comes back for a `call`. */
export type Request =
  | { call: number; kind: "open"; threads?: number }
  | { call: number; kind: "health" | "stop" }
  | { call: number; kind: "complete"; body: Partial<Params> & { messages: Message[]; max_tokens?: number } };
