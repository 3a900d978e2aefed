/** Figures of a session's video and sound, over a second or so. */

import { PictureViewer } from "./pictures.js";

/**
 * @typedef {object} Statistics
 * @property {number} fps frames decoded in the last second
 * @property {number} width pixels
 * @property {number} height pixels
 * @property {number} latencyMs from the server's sending to the screen: the network's way and the
 *   browser's buffer; of pictures over a WebSocket the buffer alone
 * @property {number} jitterMs how unevenly packets of video arrive; 0 for pictures
 * @property {number} framesDropped frames that the server left out or the browser did not show
 * @property {number} bitsASecond video and sound that arrived
 * @property {number} packetsLost 0 for pictures
 */

/** @typedef {{atMs: number, bytes: number, frames: number, delayS: number, emitted: number}} Sums */

/** Of one connection: what was counted, since it was last asked for. */
export class Figures {
  /** @type {Sums | null} */
  #before = null;

  /** Begin anew, for another connection. */
  clear() {
    this.#before = null;
  }

  /**
   * @param {RTCPeerConnection | PictureViewer} connection
   * @returns {Promise<Statistics>}
   */
  async of(connection) {
    return connection instanceof PictureViewer ? this.#ofPictures(connection) : this.#ofWebRtc(connection);
  }

  /** @param {PictureViewer} viewer @returns {Statistics} */
  #ofPictures({ bytes, shown, shownAfterMs, notShown, width, height }) {
    const sums = { bytes, frames: shown, delayS: shownAfterMs / 1000, emitted: shown };
    const told = { width, height, jitterMs: 0, framesDropped: notShown, packetsLost: 0 };
    return { ...told, ...this.#since({ atMs: performance.now(), ...sums }, 0) };
  }

  /** @param {RTCPeerConnection} connection @returns {Promise<Statistics>} */
  async #ofWebRtc(connection) {
    const now = { atMs: performance.now(), bytes: 0, frames: 0, delayS: 0, emitted: 0 };
    const told = { width: 0, height: 0, jitterMs: 0, framesDropped: 0, packetsLost: 0 };
    let roundTripS = 0;
    for (const report of (await connection.getStats()).values()) {
      if (report.type === "inbound-rtp") {
        now.bytes += report.bytesReceived ?? 0;
        told.packetsLost += Math.max(0, report.packetsLost ?? 0);
        if (report.kind !== "video") continue;
        now.frames = report.framesDecoded ?? 0;
        now.delayS = report.jitterBufferDelay ?? 0;
        now.emitted = report.jitterBufferEmittedCount ?? 0;
        told.width = report.frameWidth ?? 0;
        told.height = report.frameHeight ?? 0;
        told.jitterMs = 1000 * (report.jitter ?? 0);
        told.framesDropped = report.framesDropped ?? 0;
      } else if (report.type === "candidate-pair" && report.nominated) {
        roundTripS = report.currentRoundTripTime ?? roundTripS;
      }
    }
    return { ...told, ...this.#since(now, roundTripS) };
  }

  /** @param {Sums} now @param {number} roundTripS */
  #since(now, roundTripS) {
    const before = this.#before ?? { ...now, atMs: now.atMs - 1000 };
    this.#before = now;
    const seconds = Math.max(0.001, (now.atMs - before.atMs) / 1000);
    const emitted = now.emitted - before.emitted;
    const bufferS = emitted > 0 ? (now.delayS - before.delayS) / emitted : 0;
    return {
      fps: Math.max(0, now.frames - before.frames) / seconds,
      latencyMs: 1000 * (bufferS + roundTripS / 2),
      bitsASecond: (8 * Math.max(0, now.bytes - before.bytes)) / seconds,
    };
  }
}
