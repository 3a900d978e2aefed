/**
 * A session's video and sound over a WebSocket, for browsers without H.264 or WebRTC and for
 * networks without UDP: JPEG files and PCM, each with its time on the session's clock.
 */

import { LipwireError } from "./asking.js";

const HEAD_BYTES = 8;
const PICTURE = 1;
const SOUND = 2;
const DELAY_MS = 150;
const MORE_DELAY_MS = 200;
const LOOK_EVERY_MS = 5_000;
const SPLICE_S = 0.03;
const FIRST_WITHIN_MS = 10_000;

/**
 * Shows one session. Pictures are drawn on a canvas, whose stream, with the sound, is `stream`.
 * What comes is shown `DELAY_MS` after the fastest of it came, so that picture and sound of one
 * moment are together.
 */
export class PictureViewer {
  /** Video and sound, for a video element. */
  stream;
  /** Bytes that have come. */
  bytes = 0;
  /** Pictures that were drawn. */
  shown = 0;
  /** Pictures that came too late to be drawn. */
  notShown = 0;
  /** Sum over those drawn, from coming to being drawn. */
  shownAfterMs = 0;

  #left = new AbortController();
  /** @type {WebSocket | null} */
  #socket = null;
  #canvas = document.createElement("canvas");
  #drawing = /** @type {CanvasRenderingContext2D} */ (this.#canvas.getContext("2d"));
  #audio = new AudioContext();
  #speaker = this.#audio.createMediaStreamDestination();
  #rateHz;
  /** @type {number | null} when the session's time 0 is shown, as `performance.now()` has it */
  #zeroMs = null;
  #least = { earlyMs: Infinity, sinceMs: 0 };
  /** Where the sound that is scheduled ends, in the time of `#audio`. */
  #endS = 0;
  #drawnMs = -1;
  #onFirst = () => {};

  /** @param {{width: number, height: number, sound_rate: number}} session as the server tells it */
  constructor({ width, height, sound_rate: rateHz }) {
    this.#canvas.width = width;
    this.#canvas.height = height;
    this.#rateHz = rateHz;
    this.stream = new MediaStream([
      ...this.#canvas.captureStream().getVideoTracks(),
      ...this.#speaker.stream.getAudioTracks(),
    ]);
    // Browsers let sound begin once the visitor has touched the page.
    const begin = () => void this.#audio.resume().catch(() => {});
    for (const name of ["pointerup", "keydown", "click"]) {
      addEventListener(name, begin, { signal: this.#left.signal });
    }
    begin();
  }

  get width() {
    return this.#canvas.width;
  }

  get height() {
    return this.#canvas.height;
  }

  /**
   * Connect. Resolves when the first picture is shown.
   *
   * @param {URL} url of the session's socket
   * @param {{onBroken: () => void, onEnded: (reason: string) => void}} handlers called once at
   *   most, after that, where the socket or the session ends
   * @returns {Promise<void>}
   * @throws {LipwireError} `unreachable`
   */
  open(url, { onBroken, onEnded }) {
    const socket = new WebSocket(url);
    this.#socket = socket;
    socket.binaryType = "arraybuffer";
    return new Promise((resolve, reject) => {
      let opened = false;
      const fail = () => reject(new LipwireError("unreachable", "no picture came over the socket"));
      const timer = setTimeout(fail, FIRST_WITHIN_MS);
      this.#onFirst = () => {
        clearTimeout(timer);
        opened = true;
        resolve();
      };
      socket.onclose = () => {
        clearTimeout(timer);
        if (this.#left.signal.aborted) return;
        if (opened) onBroken();
        else fail();
      };
      socket.onmessage = ({ data }) => {
        if (typeof data !== "string") return this.#take(data);
        const event = JSON.parse(data);
        if (event.type !== "ended" || !opened) return;
        this.close();
        onEnded(event.reason);
      };
    });
  }

  close() {
    this.#left.abort();
    this.#socket?.close();
    for (const track of this.stream.getTracks()) track.stop();
    void this.#audio.close().catch(() => {});
  }

  /** @param {ArrayBuffer} data */
  #take(data) {
    this.bytes += data.byteLength;
    const head = new DataView(data, 0, HEAD_BYTES);
    const atMs = head.getUint32(4, true);
    const dueMs = this.#due(atMs);
    if (head.getUint8(0) === SOUND) this.#play(dueMs, new Int16Array(data, HEAD_BYTES));
    if (head.getUint8(0) === PICTURE) void this.#show(atMs, dueMs, new Uint8Array(data, HEAD_BYTES));
  }

  /** When what has this time is shown. @param {number} atMs @returns {number} */
  #due(atMs) {
    const now = performance.now();
    const early = () => /** @type {number} */ (this.#zeroMs) + atMs - now;
    if (this.#zeroMs === null || early() < 0) {
      this.#zeroMs = now - atMs + DELAY_MS;
      this.#least = { earlyMs: Infinity, sinceMs: now };
    }
    const least = this.#least;
    least.earlyMs = Math.min(least.earlyMs, early());
    if (now - least.sinceMs > LOOK_EVERY_MS) {
      // Once the network is quick again.
      if (least.earlyMs > DELAY_MS + MORE_DELAY_MS) this.#zeroMs -= least.earlyMs - DELAY_MS;
      this.#least = { earlyMs: Infinity, sinceMs: now };
    }
    return this.#zeroMs + atMs;
  }

  /** @param {number} dueMs @param {Int16Array} samples */
  #play(dueMs, samples) {
    const audio = this.#audio;
    if (audio.state !== "running") return;
    const wantedS = audio.currentTime + (dueMs - performance.now()) / 1000;
    if (wantedS < this.#endS - SPLICE_S) return; // it was delayed, and catches up
    const startS = wantedS > this.#endS + SPLICE_S ? wantedS : this.#endS;
    const buffer = audio.createBuffer(1, samples.length, this.#rateHz);
    buffer.copyToChannel(Float32Array.from(samples, (sample) => sample / 32768), 0);
    const source = new AudioBufferSourceNode(audio, { buffer });
    source.connect(this.#speaker);
    source.start(startS);
    this.#endS = startS + buffer.duration;
  }

  /** @param {number} atMs @param {number} dueMs @param {Uint8Array<ArrayBuffer>} file */
  async #show(atMs, dueMs, file) {
    const cameMs = performance.now();
    const picture = await createImageBitmap(new Blob([file], { type: "image/jpeg" })).catch(
      () => null,
    );
    const early = dueMs - performance.now();
    if (early > 1) await new Promise((resolve) => setTimeout(resolve, early));
    if (!picture || atMs <= this.#drawnMs || this.#left.signal.aborted) {
      picture?.close();
      this.notShown += 1;
      return;
    }
    this.#drawnMs = atMs;
    if (this.#canvas.width !== picture.width || this.#canvas.height !== picture.height) {
      this.#canvas.width = picture.width;
      this.#canvas.height = picture.height;
    }
    this.#drawing.drawImage(picture, 0, 0);
    picture.close();
    this.shown += 1;
    this.shownAfterMs += performance.now() - cameMs;
    this.#onFirst();
  }
}
