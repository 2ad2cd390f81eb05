import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ConfigRefused, readRegistryConfig, switchToCertsDir } from '#containerd/config-toml.ts';
import { k3sMirrors } from '#containerd/k3s.ts';

const debian = `version = 2

[plugins]
  [plugins."io.containerd.grpc.v1.cri"]
    [plugins."io.containerd.grpc.v1.cri".cni]
      bin_dir = "/usr/lib/cni"
      conf_dir = "/etc/cni/net.d"
  [plugins."io.containerd.internal.v1.opt"]
    path = "/var/lib/containerd/opt"
`;

const version3 = `version = 3
root = '/var/lib/containerd'
oom_score = 0

[plugins]
  [plugins.'io.containerd.cri.v1.images']
    snapshotter = 'overlayfs'

    [plugins.'io.containerd.cri.v1.images'.pinned_images]
      sandbox = 'registry.k8s.io/pause:3.10'

    [plugins.'io.containerd.cri.v1.images'.registry]
      config_path = ''

  [plugins.'io.containerd.cri.v1.runtime']
    max_concurrent = 9223372036854775807
    ratio = 1.0
`;

const inline = `# the machine of a person who likes comments
version = 2   # two

[plugins]
  [plugins."io.containerd.grpc.v1.cri"]
    sandbox_image = "a/pause:1" # keep
    [plugins."io.containerd.grpc.v1.cri".registry]
      [plugins."io.containerd.grpc.v1.cri".registry.mirrors]
        [plugins."io.containerd.grpc.v1.cri".registry.mirrors."docker.io"]
          endpoint = ["https://m1", "http://m2:5000"]
        [plugins."io.containerd.grpc.v1.cri".registry.mirrors."*"]
          endpoint = ["https://all"]
      [plugins."io.containerd.grpc.v1.cri".registry.configs."m2:5000".tls]
        insecure_skip_verify = true
        ca_file = "/ca.pem"
      [plugins."io.containerd.grpc.v1.cri".registry.configs."m2:5000".auth]
        username = "u"
      [plugins."io.containerd.grpc.v1.cri".registry.configs."private".tls]
        cert_file = "/c.pem"
        key_file = "/k.pem"
  # somebody else's
  [plugins."io.foreign.v9.thing"]
    x = 0x10 # sixteen
    when = 1979-05-27T07:32:00Z
    list = [ 1,
      2, ]
`;

test('the switch adds one setting and keeps every other byte', () => {
  const added = '[plugins."io.containerd.grpc.v1.cri".registry]\n  config_path = "/etc/containerd/certs.d"\n';
  assert.equal(switchToCertsDir(debian, '/etc/containerd/certs.d'), debian + added);
  assert.equal(
    switchToCertsDir(version3, '/etc/containerd/certs.d'),
    version3.replace("config_path = ''", 'config_path = "/etc/containerd/certs.d"'),
  );
});

/** The switch in texts whose layout an editor of TOML does not keep: what goes and what comes, line by line. */
const layouts: readonly (readonly [before: string, goes: readonly string[], comes: readonly string[]])[] = [
  [
    'version = 2\n[T]\n\tconfig_path = ""\t# tab before\n\t[T.headers]\n\t\tx = ["1"]\t# y  \n\t# end',
    ['\tconfig_path = ""\t# tab before'],
    ['\tconfig_path = "/c"\t# tab before'],
  ],
  ['version = 2  \n\t \n  [T]   # here\nx.y = 1\t# c\n', [], ['    config_path = "/c"']],
  ['version = 2\nroot = "/x"\t# where\n[a]  \n  b = 1  ', [], ['[T]', '  config_path = "/c"', '']],
  ['# a\r\nversion = 2\r\n[a]\r\nb = 1\t# c\r\n', [], ['[T]\r', '  config_path = "/c"\r']],
  [
    'version = 2\n[T.mirrors."docker.io"] # mine\n\tendpoint = ["https://m"]\n\t# stays\n[[more]]\n\tmirrors = 1\t# theirs\n',
    ['[T.mirrors."docker.io"] # mine', '\tendpoint = ["https://m"]'],
    ['[T]', '  config_path = "/c"'],
  ],
  [
    'version = 2\n[x]\ntext = """\n[T]\nconfig_path = ""\n"""\n[T]\nconfig_path = \'\'\n',
    ["config_path = ''"],
    ['config_path = "/c"'],
  ],
];

for (const [before, goes, comes] of layouts) {
  test(`the switch touches no other byte of ${JSON.stringify(before)}`, () => {
    const text = (short: string) => short.replaceAll('T', 'plugins."io.containerd.grpc.v1.cri".registry');
    const old = text(before).split('\n');
    const edited = switchToCertsDir(text(before), '/c').split('\n');
    const without = (lines: readonly string[], others: readonly string[]) => {
      const left = others.map(text);
      return lines.filter((line) => !left.includes(line) || left.splice(left.indexOf(line), 1).length === 0);
    };
    assert.deepEqual(without(edited, comes), without(old, goes));
  });
}

test('a second switch is the same text', () => {
  const once = switchToCertsDir(debian, '/c');
  assert.equal(switchToCertsDir(once, '/c'), once);
});

test('inline mirrors are read with their TLS and go with the switch; credentials, comments and foreign plugins stay', () => {
  const { inline: mirrors, roots, sandboxImage } = readRegistryConfig(inline);
  assert.deepEqual(roots, []);
  assert.equal(sandboxImage, 'a/pause:1');
  assert.deepEqual([...mirrors.keys()], ['docker.io', '_default', 'm2:5000', 'private']);
  assert.deepEqual(mirrors.get('docker.io')?.endpoints, [
    { url: 'https://m1', settings: {} },
    { url: 'http://m2:5000', settings: { skip_verify: true, ca: '/ca.pem' } },
  ]);
  assert.deepEqual(mirrors.get('private')?.server, { client: [['/c.pem', '/k.pem']] });
  const edited = switchToCertsDir(inline, '/c');
  assert.equal(readRegistryConfig(edited).inline.size, 0);
  for (const kept of [
    '# the machine of a person',
    '# two',
    '# keep',
    'username = "u"',
    "# somebody else's",
    '0x10 # sixteen',
  ]) {
    assert.ok(edited.includes(kept), kept);
  }
  assert.ok(!/mirrors|insecure_skip_verify|cert_file/.test(edited));
});

test('inline endpoints mean what the CRI plugin takes them to mean: http on this machine, a port as it stands', () => {
  const table = (path: string) => `[plugins."io.containerd.grpc.v1.cri".registry.${path}]`;
  const { inline: mirrors } = readRegistryConfig(`version = 2
${table('mirrors."docker.io"')}
endpoint = ["localhost:5000", "127.0.0.1:5001/x", "[::1]:5002", "nas:443", "https://nas:443/v2", "127.example"]
${table('configs."nas:443".tls')}
ca_file = "/ca.pem"
`);
  const ca = { ca: '/ca.pem' };
  assert.deepEqual(mirrors.get('docker.io')?.endpoints, [
    { url: 'http://localhost:5000', settings: {} },
    { url: 'http://127.0.0.1:5001/x', settings: {} },
    { url: 'http://[::1]:5002', settings: {} },
    { url: 'https://nas:443', settings: ca },
    { url: 'https://nas:443/v2', settings: ca },
    { url: 'https://127.example', settings: {} },
  ]);
});

test('mirrors in inline tables and dotted keys go too', () => {
  const text = `version = 2
[plugins."io.containerd.grpc.v1.cri".registry]
mirrors = { "docker.io" = { endpoint = ["https://m1"] } } # mine
configs."m1".tls.insecure_skip_verify = true
config_path = ""
# last words
`;
  const edited = switchToCertsDir(text, '/c');
  assert.equal(readRegistryConfig(edited).inline.size, 0);
  assert.deepEqual(readRegistryConfig(edited).roots, ['/c']);
  assert.ok(edited.includes('# last words'));
});

test('the sandbox image of a version 3 configuration is found', () => {
  assert.equal(readRegistryConfig(version3).sandboxImage, 'registry.k8s.io/pause:3.10');
});

test('what cannot be edited safely is refused', () => {
  const refused = [
    'version = 2\n[plugins\n',
    '[plugins.cri]\n',
    'version = 1\n',
    'version = 5\n',
    'version = 2\nplugins = "text"\n',
    'version = 2\n[plugins."io.containerd.grpc.v1.cri"]\nregistry = 5\n',
  ];
  for (const text of refused) assert.throws(() => switchToCertsDir(text, '/c'), ConfigRefused, text);
});

test("k3s' registries.yaml is read: star, missing schemes, TLS by host", () => {
  const mirrors = k3sMirrors(`
mirrors:
  docker.io:
    endpoint: [ "https://m1", "m2:5000" ]
  "*":
    endpoint: ["http://all"]
  empty:
configs:
  "m2:5000":
    auth: {username: u, password: secret}
    tls: {insecure_skip_verify: true, ca_file: /ca.pem}
`);
  assert.deepEqual(mirrors.get('docker.io')?.endpoints, [
    { url: 'https://m1', settings: {} },
    { url: 'https://m2:5000', settings: { skip_verify: true, ca: '/ca.pem' } },
  ]);
  assert.deepEqual([...mirrors.keys()], ['docker.io', '_default', 'empty', 'm2:5000']);
  assert.deepEqual(mirrors.get('m2:5000'), { server: { skip_verify: true, ca: '/ca.pem' }, endpoints: [] });
  assert.ok(!JSON.stringify([...mirrors]).includes('secret'));
});
