// A WebSocket server that hands each message on to its room: node ws.mjs [port] [certificate key]
import { WebSocketServer } from "ws";
import { listen, web } from "./web.mjs";

const rooms = new Map();
const server = new WebSocketServer({ server: web });

server.on("connection", (socket) => {
  const mine = new Set();
  socket.on("message", (data, isBinary) => {
    const text = isBinary ? undefined : JSON.parse(data);
    if (text?.join !== undefined) {
      if (!rooms.has(text.join)) rooms.set(text.join, new Set());
      rooms.get(text.join).add(socket);
      mine.add(text.join);
      return;
    }
    const room = isBinary ? data.toString("utf8", 1, 1 + data[0]) : text.room;
    for (const member of rooms.get(room) ?? []) member.send(data, { binary: isBinary });
  });
  socket.on("close", () => {
    for (const room of mine) {
      rooms.get(room).delete(socket);
      if (rooms.get(room).size === 0) rooms.delete(room);
    }
  });
  socket.on("error", () => socket.terminate());
});

listen(3001);
