/**
 * A live session with an avatar of a Lipwire server: its video and sound, what it is told to say,
 * and what it tells about itself. Video and sound come over WebRTC; where the browser has no H.264
 * or the network no UDP, as JPEG files and PCM over a WebSocket.
 *
 *     import { LipwireSession } from "/lipwire.js";
 *
 *     const session = new LipwireSession();
 *     session.attach(document.querySelector("video"));
 *     await session.connect({ avatar: "demo" });
 *     await session.speak("Good morning.");
 *
 * It needs the files beside it that it imports, and nothing else.
 *
 * @module lipwire
 */

import { iceServers, LipwireError, serverSentEvents, settled, wait } from "./asking.js";
import { Figures } from "./figures.js";
import { PictureViewer } from "./pictures.js";
import { AudioSender, decodeAudio, Microphone } from "./recording.js";
import { avatars, Server } from "./server.js";

export { avatars, decodeAudio, LipwireError };

const CONNECTED_WITHIN_MS = 6_000;
const GATHERED_WITHIN_MS = 1_000;
const RELAY_WITHIN_MS = 3_000;
const LISTENING_WITHIN_MS = 3_000;
const DISCONNECTED_FOR_MS = 3_000;
const FIRST_DELAY_S = 0.5;
const LONGEST_DELAY_S = 8;
const FILE_RATE_HZ = 48_000;

/**
 * @typedef {object} ConnectOptions
 * @property {string} [avatar] name of the avatar; not needed with `session`
 * @property {string} [session] id of a session that is there already, to see the same
 * @property {string} [server] address of the server; where it is not given, the page's own
 * @property {string} [token] the server's token, for pages that are not the server's own, or an API
 *   key or token where the server asks for one
 * @property {string | (() => string | Promise<string>)} [ticket] a ticket in place of `token`, for
 *   pages of others to see, or what gets one: called for each attempt to begin the session
 * @property {RTCIceServer[]} [iceServers] STUN and TURN servers, where others than the
 *   server's are needed
 * @property {"auto"|"webrtc"|"pictures"} [media] how video and sound come: over WebRTC and, where
 *   that does not work, as pictures over a WebSocket (`auto`, the default), or one of both alone
 */

/** @typedef {import("./figures.js").Statistics} Statistics */

/**
 * A session. Events, each a `CustomEvent` with its values in `detail`:
 *
 * - `session`: what the server knows of it: `id`, `avatar`, `state`, `width`, `height`, `viewers`
 * - `state`: `{state, speech, at_ms}`; `idle`, `listening`, `speaking`, `interrupted`, `closed`
 * - `speech_began`: `{speech, at_ms}`
 * - `speech_ended`: `{speech, spoken_ms, interrupted, left_ms, at_ms}`
 * - `caption`: `{text, speech, at_ms}`; what is said from now on, where it was given as text
 * - `media`: `{media, error}`; how video and sound come from now on, `webrtc` or `pictures`, and
 *   the error of WebRTC that led to pictures
 * - `frames_dropped`: `{count, reason, at_ms}`
 * - `going_away`: `{reason, left_s, at_ms}`; the server stops soon
 * - `reconnecting`: `{attempt, inS, error}`; the connection broke and is tried again in `inS` s
 * - `reconnected`
 * - `ended`: `{reason}`; nothing follows
 * - `failed`: `{error}`; a broken connection cannot be made again, and nothing follows
 */
export class LipwireSession extends EventTarget {
  /** Id of the session; empty before `connect`. */
  id = "";
  /** Name of the avatar. */
  avatar = "";
  /** @type {"new"|"connecting"|"connected"|"reconnecting"|"closed"} */
  phase = "new";
  /** What the avatar does: `idle`, `listening`, `speaking`, `interrupted`, `closed`. */
  state = "idle";
  /** @type {"webrtc"|"pictures"} how video and sound come */
  media = "webrtc";

  /** @type {ConnectOptions} */
  #options = {};
  /** The first event has come. */
  #heard = () => {};
  /** @type {Server} once it is connected with */
  #server;
  /** @type {RTCPeerConnection | PictureViewer | null} */
  #connection = null;
  /** @type {URL | null} the viewer, as WHEP has it */
  #viewer = null;
  /** @type {Set<HTMLVideoElement>} */
  #elements = new Set();
  /** @type {MediaStream | null} */
  #stream = null;
  #left = new AbortController();
  #serverDropped = 0;
  #figures = new Figures();
  /** @type {Microphone | null} */
  #microphone = null;
  #onPageHide = () => this.close();

  /**
   * Begin a session with an avatar, or see one that is there. Resolves when video and sound are
   * connected. May be called once.
   *
   * @param {ConnectOptions} options
   * @returns {Promise<this>}
   * @throws {LipwireError} of every kind but `microphone`, `voice` and `audio`
   */
  async connect(options) {
    if (this.phase !== "new") throw new LipwireError("other", `this session is ${this.phase}`);
    if (!options.avatar && !options.session) {
      throw new LipwireError("other", "neither an avatar nor a session is named");
    }
    this.#options = options;
    if (options.media === "pictures") this.media = "pictures";
    this.#server = new Server(options);
    this.phase = "connecting";
    addEventListener("pagehide", this.#onPageHide);
    try {
      if (options.session) {
        this.id = options.session;
        this.avatar = (await this.#json(`v1/sessions/${encodeURIComponent(this.id)}`)).avatar;
      } else {
        this.avatar = options.avatar ?? "";
      }
      await this.#view();
    } catch (error) {
      this.close();
      throw error;
    }
    this.phase = "connected";
    // What is said at once is heard of only by who listens already.
    const listening = new Promise((/** @type {(value?: unknown) => void} */ resolve) => (this.#heard = resolve));
    void this.#listen();
    await Promise.race([listening, wait(LISTENING_WITHIN_MS, this.#left.signal)]);
    return this;
  }

  /**
   * Show the session in a video element, now and after reconnecting. Browsers play sound only
   * after the visitor has touched the page: begin with `muted`, and unmute then.
   *
   * @param {HTMLVideoElement} element
   */
  attach(element) {
    element.autoplay = true;
    element.playsInline = true;
    this.#elements.add(element);
    if (this.#stream) element.srcObject = this.#stream;
  }

  /**
   * Have the avatar say a text or a recording. Resolves when the server has all of it, which for
   * long recordings is while it is said.
   *
   * @param {string | Blob | ArrayBuffer | Int16Array} what a text; 16-bit little-endian PCM, mono;
   *   a Blob of another type than `audio/pcm` is decoded by the browser
   * @param {{rateHz?: number}} [options] sampling rate of PCM, 16,000 where not given
   * @returns {Promise<void>}
   * @throws {LipwireError} `voice` where the server cannot say texts, `audio` where a file cannot
   *   be decoded, and others
   */
  async speak(what, { rateHz = 16_000 } = {}) {
    if (typeof what === "string") {
      await this.#post("speak", JSON.stringify({ text: what }), "application/json");
      return;
    }
    if (what instanceof Blob && what.type !== "audio/pcm") {
      what = await decodeAudio(what);
      rateHz = FILE_RATE_HZ;
    }
    await this.#post(`speak?rate=${rateHz}`, what, "audio/pcm");
  }

  /**
   * Have the avatar say what the microphone hears, until `stopMicrophone`. What it says is broken
   * off first.
   *
   * @returns {Promise<void>}
   * @throws {LipwireError} `microphone`
   */
  async startMicrophone() {
    this.#microphone ??= new Microphone();
    const microphone = this.#microphone;
    await microphone.open();
    if (this.state === "speaking") await this.interrupt();
    const url = this.#server.socketUrl(this.id, `rate=${microphone.rateHz}`);
    microphone.start(new AudioSender(url, this.#post.bind(this), microphone.rateHz));
  }

  /** End what the microphone says; it is released some seconds later. Resolves when it is sent. */
  async stopMicrophone() {
    await this.#microphone?.stop();
  }

  /** Break off what the avatar says and drop what it was to say. @returns {Promise<void>} */
  async interrupt() {
    await this.#post("interrupt");
  }

  /** Leave. The session goes on for those who see it, and for some seconds for nobody. */
  close() {
    if (this.phase === "closed") return;
    this.phase = "closed";
    removeEventListener("pagehide", this.#onPageHide);
    this.#left.abort();
    this.#microphone?.close();
    this.#leave();
    for (const element of this.#elements) element.srcObject = null;
    this.#elements.clear();
  }

  /** End the session, for everybody. @returns {Promise<void>} */
  async end() {
    const { id } = this;
    this.close();
    if (id) await this.#ask(`v1/sessions/${id}`, { method: "DELETE", keepalive: true });
  }

  /**
   * Figures of the connection since they were last asked for; ask about once a second.
   *
   * @returns {Promise<Statistics | null>} null while there is no connection
   */
  async statistics() {
    if (!this.#connection) return null;
    const figures = await this.#figures.of(this.#connection);
    return { ...figures, framesDropped: this.#serverDropped + figures.framesDropped };
  }

  // -- media -------------------------------------------------------------------------------------

  /** View the session: begin one where there is none yet. */
  async #view() {
    if (this.media === "pictures") return this.#viewPictures();
    try {
      await this.#viewWebRtc();
    } catch (error) {
      const kind = error instanceof LipwireError ? error.kind : "other";
      if (this.#options.media === "webrtc" || !["codec", "ice"].includes(kind)) throw error;
      if (this.phase === "closed") throw error;
      await this.#viewPictures().catch((second) => {
        // That there is no socket either says less than why one was wanted.
        throw second instanceof LipwireError && second.kind === "unreachable" ? error : second;
      });
      this.media = "pictures";
      this.#tell("media", { media: "pictures", error });
    }
  }

  /** View the session as pictures: begin one where there is none yet. */
  async #viewPictures() {
    if (!this.id) {
      await this.#getTicket();
      const body = JSON.stringify({ avatar: this.avatar });
      const headers = { "Content-Type": "application/json" };
      const made = await this.#ask("v1/sessions", { method: "POST", body, headers });
      this.#server.keepSecret(made);
      this.id = (await made.json()).id;
    }
    const viewer = new PictureViewer(await this.#json(`v1/sessions/${encodeURIComponent(this.id)}`));
    try {
      if (this.phase === "closed") throw new LipwireError("ended", "the session was closed");
      await viewer.open(this.#server.socketUrl(this.id, "media=1"), {
        onBroken: () => this.#broken(viewer),
        onEnded: (reason) => this.#connection === viewer && this.#end(reason),
      });
      if (this.phase === "closed") throw new LipwireError("ended", "the session was closed");
    } catch (error) {
      viewer.close();
      throw error;
    }
    // Only now, as else nobody would see the session for a moment, and it might end.
    this.#leave();
    this.#connection = viewer;
    this.#figures.clear();
    this.#show(viewer.stream);
  }

  /** @param {MediaStream} stream */
  #show(stream) {
    this.#stream = stream;
    for (const element of this.#elements) element.srcObject = stream;
  }

  /** View the session over WebRTC: begin one where there is none yet. */
  async #viewWebRtc() {
    if (typeof RTCPeerConnection === "undefined") {
      throw new LipwireError("codec", "this browser has no WebRTC");
    }
    await this.#getTicket();
    const endpoint = `whep/${encodeURIComponent(this.avatar)}`;
    const servers = this.#options.iceServers ?? (await this.#iceServers(endpoint));
    if (this.phase === "closed") throw new LipwireError("ended", "the session was closed");
    const connection = new RTCPeerConnection({ iceServers: servers });
    this.#connection = connection;
    this.#figures.clear();
    const stream = new MediaStream();
    connection.ontrack = ({ track }) => stream.addTrack(track);
    connection.addTransceiver("video", { direction: "recvonly" });
    connection.addTransceiver("audio", { direction: "recvonly" });
    await connection.setLocalDescription();
    await settled(
      connection,
      "icegatheringstatechange",
      () => connection.iceGatheringState === "complete",
      servers.length ? RELAY_WITHIN_MS : GATHERED_WITHIN_MS,
    );
    const wanted = this.id ? `?session=${encodeURIComponent(this.id)}` : "";
    const answer = await this.#ask(`${endpoint}${wanted}`, {
      method: "POST",
      headers: { "Content-Type": "application/sdp" },
      body: connection.localDescription?.sdp,
    });
    this.#server.keepSecret(answer);
    const viewer = new URL(answer.headers.get("Location") ?? "", answer.url);
    const id = decodeURIComponent(viewer.pathname.split("/").pop() ?? "");
    if (this.phase === "closed") {
      // Left while the server answered: leave there, too.
      this.#viewer = viewer;
      this.#leave();
      throw new LipwireError("ended", "the session was closed");
    }
    this.#viewer = viewer;
    this.id = id;
    await connection.setRemoteDescription({ type: "answer", sdp: await answer.text() });
    this.#show(stream);
    await settled(
      connection,
      "connectionstatechange",
      () => ["connected", "failed"].includes(connection.connectionState),
      CONNECTED_WITHIN_MS,
    );
    if (connection.connectionState !== "connected") {
      throw new LipwireError("ice", "no connection for video and sound within 6 s");
    }
    this.#watch(connection);
  }

  /**
   * The server's STUN and TURN servers; none where it does not tell.
   *
   * @param {string} endpoint
   * @returns {Promise<RTCIceServer[]>}
   */
  async #iceServers(endpoint) {
    try {
      const answer = await this.#ask(endpoint, { method: "OPTIONS" });
      return iceServers(answer.headers.get("Link"));
    } catch {
      return []; // what is wrong is said by the answer to the offer
    }
  }

  /** @param {RTCPeerConnection} connection */
  #watch(connection) {
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    let timer;
    connection.onconnectionstatechange = () => {
      clearTimeout(timer);
      if (connection.connectionState === "failed") this.#broken(connection);
      if (connection.connectionState === "disconnected") {
        timer = setTimeout(() => {
          if (connection.connectionState === "disconnected") this.#broken(connection);
        }, DISCONNECTED_FOR_MS);
      }
    };
  }

  /** @param {RTCPeerConnection | PictureViewer | null} connection the one that broke */
  #broken(connection) {
    if (this.phase === "connected" && connection === this.#connection) void this.#reconnect();
  }

  async #reconnect() {
    this.phase = "reconnecting";
    /** @type {unknown} */
    let error = new LipwireError("ice", "the connection broke");
    for (let attempt = 1, delayS = FIRST_DELAY_S; ; attempt++) {
      this.#tell("reconnecting", { attempt, inS: delayS, error });
      await wait(1000 * delayS, this.#left.signal);
      if (this.phase === "closed") return;
      this.#leave();
      try {
        await this.#view();
        break;
      } catch (raised) {
        if (this.phase === "closed") return;
        error = raised;
        const kind = raised instanceof LipwireError ? raised.kind : "other";
        if (kind === "ended") return this.#end("the connection was lost for too long");
        if (!["unreachable", "unavailable", "ice", "full"].includes(kind)) {
          this.close();
          this.#tell("failed", { error });
          return;
        }
        delayS = Math.min(2 * delayS, LONGEST_DELAY_S);
      }
    }
    this.phase = "connected";
    this.#tell("reconnected", {});
    void this.#listen();
  }

  /** Close the connection, and tell the server. */
  #leave() {
    const viewer = this.#viewer;
    this.#connection?.close();
    this.#connection = this.#viewer = null;
    if (viewer) {
      // keepalive: it is sent even where the page is being left.
      fetch(viewer, { method: "DELETE", keepalive: true, headers: this.#server.authorization() }).catch(
        () => {},
      );
    }
  }

  // -- events ------------------------------------------------------------------------------------

  /** Read the session's events until it ends or the connection breaks. */
  async #listen() {
    const connection = this.#connection;
    for (let failures = 0; this.phase === "connected" && connection === this.#connection; ) {
      try {
        const answer = await this.#ask(`v1/sessions/${this.id}/events`, {
          signal: this.#left.signal,
        });
        failures = 0;
        for await (const event of serverSentEvents(answer)) {
          if (this.phase === "closed" || connection !== this.#connection) return;
          if (this.#take(event)) return;
        }
      } catch (error) {
        if (this.phase === "closed") return;
        if (error instanceof LipwireError && error.kind === "ended") {
          this.#end("");
          return;
        }
        failures += 1;
      }
      if (failures > 1) {
        this.#broken(connection);
        return;
      }
      await wait(1000 * FIRST_DELAY_S, this.#left.signal);
    }
  }

  /** @param {any} event @returns {boolean} whether it is the last */
  #take(event) {
    this.#heard();
    const { type, ...values } = event;
    if (type === "ended") {
      this.#end(values.reason);
      return true;
    }
    if (type === "session" || type === "state_changed") this.state = values.state;
    if (type === "frames_dropped") this.#serverDropped += values.count;
    this.#tell(type === "state_changed" ? "state" : type, values);
    return false;
  }

  /** @param {string} reason */
  #end(reason) {
    if (this.phase === "closed") return;
    this.#viewer = null;
    this.close();
    this.state = "closed";
    this.#tell("ended", { reason });
  }

  /** @param {string} type @param {object} detail */
  #tell(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }

  /** Have a ticket to begin the session with, where the page was given one or a way to one. */
  async #getTicket() {
    const { ticket } = this.#options;
    if (ticket && !this.id) await this.#server.useTicket(ticket);
  }

  /** @param {string} path @param {BodyInit} [body] @param {string} [type] */
  async #post(path, body, type) {
    if (!this.id || this.phase === "closed") throw new LipwireError("ended", "there is no session");
    const headers = type ? { "Content-Type": type } : undefined;
    await this.#ask(`v1/sessions/${this.id}/${path}`, { method: "POST", body, headers });
  }

  /** @param {string} path @returns {Promise<any>} */
  async #json(path) {
    return (await this.#ask(path)).json();
  }

  /** @param {string} path @param {RequestInit} [init] @returns {Promise<Response>} */
  #ask(path, init = {}) {
    return this.#server.ask(path, init, Boolean(this.id));
  }
}
