/** Sound that an avatar is to say: files, and what the microphone hears. */

import { LipwireError, settled, wait } from "./asking.js";

const FILE_RATE_HZ = 48_000;
const PIECE_S = 0.2;
const SEND_EVERY_MS = 40;
const MOST_UNSENT_S = 10;
const SOCKET_WITHIN_MS = 2_000;
const SOCKET_KEPT_MS = 5_000;
const MICROPHONE_KEPT_MS = 20_000;

/**
 * Decode a file of sound to PCM at 48,000 Hz, mono.
 *
 * @param {Blob} file anything that the browser can decode
 * @returns {Promise<Int16Array>}
 * @throws {LipwireError} `audio`
 */
export async function decodeAudio(file) {
  let buffer;
  try {
    const context = new OfflineAudioContext(1, 1, FILE_RATE_HZ);
    buffer = await context.decodeAudioData(await file.arrayBuffer());
  } catch {
    throw new LipwireError("audio", "the browser cannot decode this file as sound");
  }
  const mixed = new Float32Array(buffer.length);
  for (let channel = 0; channel < buffer.numberOfChannels; channel++) {
    const samples = buffer.getChannelData(channel);
    for (let i = 0; i < mixed.length; i++) mixed[i] += samples[i] / buffer.numberOfChannels;
  }
  return Int16Array.from(mixed, (value) =>
    Math.max(-32768, Math.min(32767, Math.round(32767 * value))),
  );
}

/** Hears the microphone. It is kept open for some seconds after use, to begin at once again. */
export class Microphone {
  /** @type {MediaStream | null} */
  #stream = null;
  /** @type {AudioContext | null} */
  #context = null;
  /** @type {AudioSender | null} */
  #sender = null;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;

  /** Of what it hears. */
  get rateHz() {
    return this.#context?.sampleRate ?? 0;
  }

  async open() {
    clearTimeout(this.#timer);
    if (this.#context) return;
    if (!navigator.mediaDevices?.getUserMedia) {
      throw new LipwireError("microphone", "browsers give a microphone only to pages over HTTPS", {
        detail: "InsecureContext",
      });
    }
    try {
      this.#stream = await navigator.mediaDevices.getUserMedia({
        audio: { channelCount: 1, echoCancellation: true, noiseSuppression: true },
      });
      const context = new AudioContext();
      await context.audioWorklet.addModule(new URL("./microphone.js", import.meta.url));
      const node = new AudioWorkletNode(context, "lipwire-microphone", { numberOfOutputs: 0 });
      node.port.onmessage = ({ data }) => this.#sender?.push(data);
      context.createMediaStreamSource(this.#stream).connect(node);
      await context.resume();
      this.#context = context;
    } catch (error) {
      this.close();
      const { name, message } = /** @type {DOMException} */ (error);
      throw new LipwireError("microphone", message, { detail: name });
    }
  }

  /** @param {AudioSender} sender */
  start(sender) {
    this.#sender = sender;
  }

  async stop() {
    const sender = this.#sender;
    this.#sender = null;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.close(), MICROPHONE_KEPT_MS);
    await sender?.end();
  }

  close() {
    clearTimeout(this.#timer);
    this.#sender = null;
    for (const track of this.#stream?.getTracks() ?? []) track.stop();
    void this.#context?.close();
    this.#stream = this.#context = null;
  }
}

/** Sends speech while it is spoken: over a WebSocket where the server has one, else by requests. */
export class AudioSender {
  /** @type {Int16Array[]} */
  #unsent = [];
  #samples = 0;
  #ended = false;
  #failed = false;
  #url;
  #post;
  #rateHz;
  #running;

  /**
   * @param {URL} url of the WebSocket
   * @param {(path: string, body: BodyInit, type: string) => Promise<void>} post
   * @param {number} rateHz
   */
  constructor(url, post, rateHz) {
    this.#url = url;
    this.#post = post;
    this.#rateHz = rateHz;
    this.#running = this.#run();
  }

  /** @param {Int16Array} piece */
  push(piece) {
    if (this.#failed) return;
    this.#unsent.push(piece);
    this.#samples += piece.length;
    // Where the network does not keep up, the oldest goes.
    while (this.#samples > MOST_UNSENT_S * this.#rateHz) {
      this.#samples -= this.#unsent.shift()?.length ?? 0;
    }
  }

  async end() {
    this.#ended = true;
    await this.#running;
  }

  async #run() {
    const socket = await openSocket(this.#url);
    const pieceS = socket ? 0 : PIECE_S;
    try {
      for (;;) {
        const last = this.#ended;
        if (last || this.#samples > pieceS * this.#rateHz) {
          const pieces = new Blob(this.#unsent);
          this.#unsent = [];
          this.#samples = 0;
          if (socket) socket.send(await pieces.arrayBuffer());
          else await this.#post(`speak?rate=${this.#rateHz}&end=${+last}`, pieces, "audio/pcm");
        }
        if (last) break;
        await wait(SEND_EVERY_MS);
      }
      socket?.send(JSON.stringify({ type: "input_audio_buffer.commit" }));
    } catch {
      this.#failed = true; // what the session tells says why
    } finally {
      setTimeout(() => socket?.close(), SOCKET_KEPT_MS); // what was sent is heard by then
    }
  }
}

/** Sockets that were refused once are not tried again. */
let hasSockets = true;

/** @param {URL} url @returns {Promise<WebSocket | null>} null where the server has none */
async function openSocket(url) {
  if (!hasSockets) return null;
  const socket = new WebSocket(url);
  const over = () => socket.readyState !== WebSocket.CONNECTING;
  await Promise.race(
    ["open", "error"].map((name) => settled(socket, name, over, SOCKET_WITHIN_MS)),
  );
  if (socket.readyState === WebSocket.OPEN) return socket;
  socket.close();
  hasSockets = false;
  return null;
}
