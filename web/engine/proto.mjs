/** Reads protocol buffers: the fields of a message, and a SentencePiece model. */

export const NORMAL = 1;
export const UNKNOWN = 2;
export const CONTROL = 3;
export const USER_DEFINED = 4;

/**
 * @typedef {object} Piece
 * @property {Uint8Array} bytes the spelling in UTF-8
 * @property {number} score
 * @property {number} type
 */

/** @typedef {{ dummyPrefix: boolean, trim: boolean, charsMap: Uint8Array | null }} NormalizerSpec */

/**
 * The pieces and the normalizer of a unigram model.
 * Source: sentencepiece_model.proto of https://github.com/google/sentencepiece
 * @param {Uint8Array} content
 * @returns {{ pieces: Piece[], normalizer: NormalizerSpec }}
 */
export function readSentencePiece(content) {
  /** @type {Piece[]} */
  const pieces = [];
  /** @type {NormalizerSpec} */
  const normalizer = { dummyPrefix: true, trim: true, charsMap: null };
  for (const [number, value] of fieldsOf(content)) {
    if (number === 1) pieces.push(readPiece(bytesOf(value)));
    if (number === 3) readNormalizer(bytesOf(value), normalizer);
  }
  return { pieces, normalizer };
}

/** @param {Uint8Array} content @returns {Piece} */
function readPiece(content) {
  /** @type {Piece} */
  const piece = { bytes: new Uint8Array(), score: 0, type: NORMAL };
  for (const [number, value] of fieldsOf(content)) {
    if (number === 1) piece.bytes = bytesOf(value);
    if (number === 2) piece.score = viewOf(bytesOf(value)).getFloat32(0, true);
    if (number === 3) piece.type = Number(value);
  }
  return piece;
}

/** @param {Uint8Array} content @param {NormalizerSpec} normalizer */
function readNormalizer(content, normalizer) {
  for (const [number, value] of fieldsOf(content)) {
    if (number === 2 && bytesOf(value).length) normalizer.charsMap = bytesOf(value);
    if (number === 3) normalizer.dummyPrefix = value === 1;
    if (number === 4) normalizer.trim = value === 1;
  }
}

/**
 * The fields of a message: their numbers, and their values as numbers or as bytes.
 * @param {Uint8Array} content
 * @returns {Generator<[number, number | Uint8Array]>}
 */
function* fieldsOf(content) {
  let at = 0;
  const varint = () => {
    let value = 0;
    for (let factor = 1; ; factor *= 128) {
      const byte = content[at++];
      value += (byte & 127) * factor;
      if (byte < 128) return value;
    }
  };
  while (at < content.length) {
    const key = varint();
    const wire = key & 7;
    if (wire === 0) {
      yield [key >>> 3, varint()];
      continue;
    }
    const size = wire === 2 ? varint() : wire === 5 ? 4 : 8;
    yield [key >>> 3, content.subarray(at, at + size)];
    at += size;
  }
}

/** @param {number | Uint8Array} value */
function bytesOf(value) {
  if (typeof value === "number") throw new TypeError("the tokenizer's file is damaged");
  return value;
}

/** @param {Uint8Array} bytes */
export function viewOf(bytes) {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
