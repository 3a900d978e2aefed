/** What the page says when something fails: what it is, and what to do. */

/** @typedef {import("./lipwire.js").LipwireError} LipwireError */

/**
 * @typedef {object} Explained
 * @property {string} title
 * @property {string} text
 * @property {string} action what the button says
 * @property {number} [againInS] after which it is tried again by itself
 */

/**
 * Why there is no session.
 *
 * @param {LipwireError} error
 * @returns {Explained}
 */
export function explain(error) {
  switch (error.kind) {
    case "full":
      return {
        title: "All places are taken",
        text: "The server shows as many avatars as it can. Keep this page open: it tries again.",
        action: "Try now",
        againInS: error.retryAfterS ?? 5,
      };
    case "codec":
      return {
        title: "This browser cannot show the video",
        text:
          "It comes as H.264 over WebRTC, or as pictures over a WebSocket, and neither works here. " +
          "A current Chrome, Edge, Safari or Firefox has both.",
        action: "Try again",
      };
    case "ice":
      return {
        title: "The video does not get through",
        text:
          "The server answers, but this network lets no video (UDP) pass. Try another network or " +
          "switch off the VPN; whoever runs the server can add a TURN server.",
        action: "Try again",
      };
    case "ended":
      return {
        title: "This session has ended",
        text: "It is no longer on the server. You can begin a new one.",
        action: "Talk again",
      };
    case "not_found":
      return {
        title: "There is no such avatar",
        text: "The server has none of this name. Choose another one above.",
        action: "Try again",
      };
    case "refused":
      return {
        title: "The server refuses this page",
        text: "Open the page under the server’s own address. Whoever runs it finds the reason below.",
        action: "Try again",
      };
    case "key":
      return {
        title: "This server asks for a key",
        text: "Whoever runs it gives you one. It is kept in this tab until you close it.",
        action: "Continue",
      };
    case "unavailable":
      return {
        title: "The server is not ready",
        text: "It may be starting or stopping. This page tries again.",
        action: "Try now",
        againInS: error.retryAfterS ?? 3,
      };
    case "unreachable":
      return {
        title: "The server is gone",
        text: "It does not answer. See whether it runs and whether you are online; this page tries again.",
        action: "Try now",
        againInS: 5,
      };
    default:
      return {
        title: "Something went wrong",
        text: "Try again; if it stays, whoever runs the server finds the reason below and in its log.",
        action: "Try again",
      };
  }
}

/** Why a session has ended. @param {string} reason the server's @returns {Explained} */
export function explainEnd(reason) {
  const texts = /** @type {Record<string, string>} */ ({
    max_idle: "Nobody said anything for a long time.",
    max_duration: "It lasted as long as a session may here.",
    reconnect_grace: "The connection was lost for too long.",
    nobody_joined_timeout: "Nobody joined it in time.",
    ticket_over: "The time of its ticket is over.",
    minutes_used_up: "The minutes of this month are used up.",
    made_room: "The connection was lost, and its place was given to another session.",
    avatar_removed: "The avatar was removed from the server.",
    error: "The avatar failed. Whoever runs the server finds the reason in its log.",
    closed: "Whoever began it has ended it.",
    "the server is shutting down": "The server is shutting down.",
  });
  return { title: "The session has ended", text: texts[reason] ?? reason, action: "Talk again" };
}

/**
 * Why pictures are shown in place of video.
 *
 * @param {LipwireError} error
 * @returns {{label: string, text: string}} in two words or so, and in a sentence
 */
export function explainPictures(error) {
  if (error.kind === "codec") {
    return {
      label: "Pictures: no H.264",
      text: "This browser has no H.264 over WebRTC, so single pictures and plain sound are sent. They take more of the network.",
    };
  }
  return {
    label: "Pictures: no UDP",
    text: "This network lets no video (UDP) pass, so single pictures and plain sound are sent. They take more of the network.",
  };
}

/** Why something was not said, in one line. @param {LipwireError} error @returns {string} */
export function explainUnsaid(error) {
  switch (error.kind) {
    case "voice":
      return "This server has no voice for texts. Hold the microphone and speak, or drop a recording.";
    case "audio":
      return "The browser cannot play this file. MP3, WAV, FLAC, Ogg and M4A work mostly.";
    case "microphone":
      if (error.detail === "NotAllowedError") {
        return "The microphone is blocked. Allow it for this page (the icon before the address), and hold the button again.";
      }
      if (error.detail === "NotFoundError") return "No microphone was found. Plug one in and try again.";
      if (error.detail === "InsecureContext") {
        return "Browsers give the microphone only to pages on https:// or localhost. Open this page so.";
      }
      return `The microphone does not work: ${error.message}`;
    case "ended":
      return "The session has ended.";
    case "unreachable":
      return "The server does not answer. Nothing was said.";
    default:
      return `That was not said: ${error.message}`;
  }
}
