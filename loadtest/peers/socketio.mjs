// A Socket.IO server that hands each message on to its room: node socketio.mjs [port] [certificate key]
import { Server } from "socket.io";
import { listen, web } from "./web.mjs";

const io = new Server(web, { transports: ["websocket"], serveClient: false });

io.on("connection", (socket) => {
  socket.on("join", async (room, joined) => {
    await socket.join(room);
    joined?.();
  });
  socket.on("message", (room, payload) => io.to(room).emit("message", room, payload));
});

listen(3000);
