// A WebSocket server that hands each message on to its room: node ws.mjs [port]
import { WebSocketServer } from "ws";

const rooms = new Map();
const server = new WebSocketServer({ host: "127.0.0.1", port: Number(process.argv[2] ?? 3001) });

server.on("listening", () => console.log(`listening at 127.0.0.1:${server.address().port}`));
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
