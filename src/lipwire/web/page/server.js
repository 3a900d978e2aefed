/** The server that a session is of: where it is, and what it is asked with. */

import { ask } from "./asking.js";

export class Server {
  /** What it is asked with: a token, a ticket, or the secret of the session. */
  #token;
  #address;

  /** @param {{server?: string, token?: string}} options as those of a session */
  constructor({ server, token }) {
    this.#address = new URL(server ?? "/", globalThis.location?.href).href;
    this.#token = token ?? "";
  }

  /** @param {string} path @returns {URL} */
  url(path) {
    return new URL(path, this.#address);
  }

  /** @param {string} id of the session @param {string} query @returns {URL} */
  socketUrl(id, query) {
    const url = this.url(`v1/sessions/${encodeURIComponent(id)}/socket?${query}`);
    url.protocol = url.protocol.replace("http", "ws");
    if (this.#token) url.searchParams.set("token", this.#token);
    return url;
  }

  /** @returns {Record<string, string>} */
  authorization() {
    return this.#token ? { Authorization: `Bearer ${this.#token}` } : {};
  }

  /**
   * @param {string | (() => string | Promise<string>)} ticket to begin the session with, or what
   *   gets one
   */
  async useTicket(ticket) {
    this.#token = typeof ticket === "string" ? ticket : await ticket();
  }

  /** @param {Response} answer which has the secret of the session that a ticket has begun */
  keepSecret(answer) {
    this.#token = answer.headers.get("Lipwire-Session-Token") ?? this.#token;
  }

  /**
   * @param {string} path @param {RequestInit} init
   * @param {boolean} ofSession whether there is a session, which the answer may say has ended
   * @returns {Promise<Response>}
   */
  ask(path, init, ofSession) {
    const headers = { ...init.headers, ...this.authorization() };
    return ask(this.url(path), { ...init, headers }, ofSession);
  }
}

/**
 * The names of the avatars that a server has.
 *
 * @param {{server?: string, token?: string}} [options] as those of a session
 * @returns {Promise<string[]>}
 * @throws {LipwireError}
 */
export async function avatars(options = {}) {
  const answer = await new Server(options).ask("v1/avatars", {}, false);
  return (await answer.json()).avatars.map((/** @type {{id: string}} */ { id }) => id);
}
