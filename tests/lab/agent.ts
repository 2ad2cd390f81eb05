// Runs in the guest as root: does what the harness asks for over the virtio-serial port. A command that hangs holds up
// neither the others nor this loop.
import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, openSync, read, readFileSync, write } from 'node:fs';
import { connect, type Socket } from 'node:net';
import {
  type ExecRequest,
  encodeFrame,
  type Frame,
  FrameReader,
  type FrameType,
  frame,
  type OpenRequest,
} from './frames.ts';

const port = openSync('/dev/virtio-ports/lab.agent', 'r+');
const commands = new Map<number, ChildProcess>();
const connections = new Map<number, Socket>();
const outgoing: Buffer[] = [];
let writing = false;

function send(type: FrameType, id: number, payload: Uint8Array | string = ''): void {
  outgoing.push(encodeFrame(type, id, payload));
  if (!writing) writeNext();
}

function writeNext(): void {
  const next = outgoing.shift();
  writing = next !== undefined;
  if (next === undefined) return;
  write(port, next, (error, written) => {
    if (error !== null && error.code !== 'EAGAIN') process.exit(1); // systemd starts it again, which says hello
    if (written < next.length) outgoing.unshift(next.subarray(written || 0));
    writeNext();
  });
}

function hello(): void {
  const bootId = readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
  send(frame.hello, 0, JSON.stringify({ bootId, pid: process.pid }));
}

function exec(id: number, request: ExecRequest): void {
  const [file = '', ...args] = request.argv;
  const env = {
    PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
    HOME: '/root',
    LC_ALL: 'C',
  };
  const child = spawn(file, args, { cwd: '/', env: { ...env, ...request.env }, detached: true });
  commands.set(id, child);
  let reason: 'timeout' | undefined;
  const finish = (answer: object) => {
    clearTimeout(timer);
    if (commands.delete(id)) send(frame.exit, id, JSON.stringify({ ...answer, ...(reason && { reason }) }));
  };
  const timer = setTimeout(() => {
    reason = 'timeout';
    endGroup(child);
    // A process that waits for a dead device or server outlives SIGKILL: nobody waits for it here.
    setTimeout(finish, 1000, { code: null, signal: 'SIGKILL' });
  }, request.timeoutMs);
  child.stdin.on('error', () => undefined); // a command that does not read its input is no error of ours
  child.stdout.on('data', (part: Buffer) => send(frame.output, id, part));
  child.stderr.on('data', (part: Buffer) => send(frame.errors, id, part));
  child.once('error', ({ message }) => finish({ code: null, signal: null, reason: 'start', message }));
  child.once('close', (code, signal) => finish({ code, signal }));
}

function endGroup(child: ChildProcess | undefined): void {
  if (child?.pid === undefined || child.exitCode !== null) return;
  try {
    process.kill(-child.pid, 'SIGKILL');
  } catch {
    child.kill('SIGKILL'); // the group is gone already
  }
}

function open(id: number, request: OpenRequest): void {
  const target = 'port' in request ? { host: '127.0.0.1', port: request.port } : { path: request.path };
  const socket = connect({ ...target, allowHalfOpen: true });
  connections.set(id, socket);
  let reason = '';
  socket.on('data', (part) => send(frame.data, id, part));
  socket.once('end', () => send(frame.end, id));
  socket.once('error', (error) => {
    reason = error.message;
  });
  socket.once('close', () => {
    if (connections.delete(id)) send(frame.close, id, reason);
  });
}

type Handler = (id: number, payload: Buffer) => void;

const parsed = (payload: Buffer) => JSON.parse(payload.toString('utf8'));
const handlers: Readonly<Record<number, Handler>> = {
  [frame.ping]: () => hello(),
  [frame.exec]: (id, payload) => exec(id, parsed(payload)),
  [frame.input]: (id, payload) => {
    const input = commands.get(id)?.stdin;
    if (input) input.write(payload, () => send(frame.ack, id));
    else send(frame.ack, id);
  },
  [frame.inputEnd]: (id) => commands.get(id)?.stdin?.end(),
  [frame.kill]: (id) => endGroup(commands.get(id)),
  [frame.open]: (id, payload) => open(id, parsed(payload)),
  [frame.data]: (id, payload) => connections.get(id)?.write(payload),
  [frame.end]: (id) => connections.get(id)?.end(),
  [frame.close]: (id) => connections.get(id)?.destroy(),
};

function take({ type, id, payload }: Frame): void {
  handlers[type]?.(id, payload);
}

function listen(reader: FrameReader, buffer: Buffer): void {
  read(port, buffer, 0, buffer.length, null, (error, size) => {
    if (error !== null && error.code !== 'EAGAIN') {
      closeSync(port);
      process.exit(1);
    }
    if (size > 0) for (const next of reader.push(Buffer.from(buffer.subarray(0, size)))) take(next);
    // Nothing to read means that QEMU's side is not connected; there is no event for it that Node could wait for.
    if (size > 0) listen(reader, buffer);
    else setTimeout(listen, 20, reader, buffer);
  });
}

listen(new FrameReader(), Buffer.alloc(65_536));
hello();
