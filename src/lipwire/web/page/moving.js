/** Going over to another server when the one that has a session stops. */

import { wait } from "./asking.js";
import { LipwireSession } from "./lipwire.js";

const BEFORE_END_MS = 4_000;
const AGAIN_MS = 500;

/** @typedef {(session: LipwireSession) => Promise<unknown>} Say gives a session something to say */

/** What a session was given to say, and has not said, in its order. */
export class Unsaid {
  /** @type {Say[]} */
  #waiting = [];

  /** @param {Say} say @returns {() => void} what takes it back, where it is not said */
  give(say) {
    this.#waiting.push(say);
    return () => {
      this.#waiting = this.#waiting.filter((each) => each !== say);
    };
  }

  /** A piece of speech has ended. @param {boolean} interrupted with all that was to follow */
  ended(interrupted) {
    this.#waiting = interrupted ? [] : this.#waiting.slice(1);
  }

  /** Have another session say all of it. @param {LipwireSession} session */
  async sayAgain(session) {
    for (const say of [...this.#waiting]) await say(session);
  }
}

/**
 * Begin a session in the place of one whose server stops. Resolves when the one before may be left:
 * it rests, a piece of speech has ended, or there is no more time.
 *
 * @param {LipwireSession} before
 * @param {number} leftS seconds until its server stops
 * @param {import("./lipwire.js").ConnectOptions} options
 * @returns {Promise<LipwireSession | null>} null where no server took it
 */
export async function following(before, leftS, options) {
  const endsAt = performance.now() + 1000 * leftS;
  while (before.phase !== "closed" && performance.now() < endsAt) {
    const made = new LipwireSession();
    try {
      await made.connect(options);
    } catch {
      // Perhaps it came to the server that stops.
      await wait(AGAIN_MS);
      continue;
    }
    await spoken(before, endsAt - BEFORE_END_MS - performance.now());
    return made;
  }
  return null;
}

/** @param {LipwireSession} session @param {number} withinMs @returns {Promise<void>} */
function spoken(session, withinMs) {
  if (session.state !== "speaking" || withinMs <= 0) return Promise.resolve();
  return new Promise((resolve) => {
    const timer = setTimeout(done, withinMs);
    const last = ["speech_ended", "ended", "failed"];
    function done() {
      clearTimeout(timer);
      for (const name of last) session.removeEventListener(name, done);
      resolve();
    }
    for (const name of last) session.addEventListener(name, done);
  });
}
