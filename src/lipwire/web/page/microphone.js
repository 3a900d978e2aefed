/** Runs in the browser's audio thread: what it hears as 16-bit PCM, in pieces of some 40 ms. */

const PIECE_S = 0.04;

class MicrophoneProcessor extends AudioWorkletProcessor {
  /** @type {Int16Array} */
  #piece = new Int16Array(Math.round(PIECE_S * sampleRate));
  #filled = 0;

  /** @param {Float32Array[][]} inputs @returns {boolean} whether there may be more */
  process(inputs) {
    const [samples] = inputs[0];
    for (const value of samples ?? []) {
      this.#piece[this.#filled++] = Math.max(-32768, Math.min(32767, Math.round(32767 * value)));
      if (this.#filled === this.#piece.length) {
        this.port.postMessage(this.#piece.slice());
        this.#filled = 0;
      }
    }
    return true;
  }
}

registerProcessor("lipwire-microphone", MicrophoneProcessor);
