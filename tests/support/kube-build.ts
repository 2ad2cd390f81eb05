import { execFile } from 'node:child_process';
import {
  accessSync,
  constants,
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { homedir } from 'node:os';
import { delimiter, dirname, join } from 'node:path';
import { promisify } from 'node:util';

const run = promisify(execFile);

export interface KubeBinaries {
  readonly apiserver: string;
  readonly etcd: string;
  readonly from: string;
}

/** Changes when the build changes; part of the cache's path. */
const build = '1.20.2-2';

/** The last is a newer version of a library that the source carries: the carried one breaks with this Go. */
const packages = ['golang-1.19-go', 'golang-1.19-src', 'etcd-server', 'golang-github-modern-go-reflect2-dev'];

function executable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

function inFolder(folder: string, from: string): KubeBinaries | undefined {
  const [apiserver, etcd] = [join(folder, 'kube-apiserver'), join(folder, 'etcd')];
  return executable(apiserver) && executable(etcd) ? { apiserver, etcd, from } : undefined;
}

/** Outside the repository, shared by all check-outs. */
export function kubeCache(): string {
  return join(process.env['BEOSD_CACHE'] ?? join(homedir(), '.cache', 'beosd'), 'kube', build);
}

/** A kube-apiserver and etcd that are there already: KUBEBUILDER_ASSETS, PATH, our cache. */
export function findKube(): KubeBinaries | undefined {
  const assets = process.env['KUBEBUILDER_ASSETS'];
  const onPath = (process.env['PATH'] ?? '').split(delimiter).filter(Boolean);
  return (
    (assets ? inFolder(assets, 'KUBEBUILDER_ASSETS') : undefined) ??
    onPath.map((folder) => inFolder(folder, 'PATH')).find(Boolean) ??
    inFolder(join(kubeCache(), 'bin'), 'cache')
  );
}

/**
 * Builds both from Debian's packages into the cache: etcd from `etcd-server`, kube-apiserver from the source package
 * `kubernetes` (which carries all it needs) with Debian's Go. About 6 minutes on 2 cores, once. Works in a private apt
 * state beside the machine's own and installs nothing into the machine. Throws with the reason when it cannot.
 */
export async function buildKube(say: (line: string) => void): Promise<KubeBinaries> {
  const work = join(kubeCache(), `build-${process.pid}`);
  mkdirSync(work, { recursive: true });
  try {
    say('fetching etcd-server, golang and the source of kubernetes with apt');
    await fetchPackages(work);
    say('building kube-apiserver (about 6 minutes, once)');
    const apiserver = await compile(work);
    const bin = join(kubeCache(), 'bin');
    const fresh = join(work, 'bin');
    mkdirSync(fresh);
    cpSync(apiserver, join(fresh, 'kube-apiserver'));
    cpSync(join(work, 'root/usr/bin/etcd'), join(fresh, 'etcd'));
    if (!existsSync(bin)) renameSync(fresh, bin);
  } finally {
    // Go marks its module cache read-only, but not its build cache: a plain removal is enough here.
    rmSync(work, { recursive: true, force: true });
  }
  const built = findKube();
  if (built === undefined) throw new Error('the build left no binaries');
  return built;
}

async function fetchPackages(work: string): Promise<void> {
  const apt = aptOptions(work);
  const options = { cwd: work, timeout: 300_000, maxBuffer: 16 * 1024 * 1024 };
  await run('apt-get', [...apt, '-q', 'update'], options);
  await run('apt-get', [...apt, '-q', 'download', ...packages], options);
  await run('apt-get', [...apt, '-q', 'source', '--download-only', 'kubernetes'], options);
  const names = readdirSync(work);
  for (const name of names.filter((each) => each.endsWith('.deb'))) {
    await run('dpkg-deb', ['-x', name, 'root'], options);
  }
  const source = names.find((each) => /^kubernetes_.*\.orig\.tar\.gz$/.test(each));
  if (source === undefined) throw new Error('apt gave no source of kubernetes');
  mkdirSync(join(work, 'gopath/src/k8s.io/kubernetes'), { recursive: true });
  await run('tar', ['-xzf', source, '-C', 'gopath/src/k8s.io/kubernetes', '--strip-components=1'], options);
  const reflect2 = 'github.com/modern-go/reflect2';
  const vendored = join(work, 'gopath/src/k8s.io/kubernetes/vendor', reflect2);
  rmSync(vendored, { recursive: true });
  cpSync(join(work, 'root/usr/share/gocode/src', reflect2), vendored, { recursive: true, dereference: true });
}

/** A private apt: the machine's own Debian sources, with source packages. */
function aptOptions(work: string): string[] {
  for (const folder of ['parts', 'lists/partial', 'cache/archives/partial']) {
    mkdirSync(join(work, folder), { recursive: true });
  }
  const lists = ['/etc/apt/sources.list'];
  if (existsSync('/etc/apt/sources.list.d')) {
    lists.push(
      ...readdirSync('/etc/apt/sources.list.d').map((name) => join('/etc/apt/sources.list.d', name)),
    );
  }
  let found = 0;
  for (const path of lists.filter((each) => existsSync(each))) {
    const text = readFileSync(path, 'utf8');
    if (!/debian/i.test(text) || !/\.(list|sources)$/.test(path)) continue;
    const withSource = path.endsWith('.list')
      ? text.replace(/^deb (.*)$/gm, 'deb $1\ndeb-src $1')
      : text.replace(/^Types:.*$/gm, 'Types: deb deb-src');
    writeFileSync(
      join(work, 'parts', `${found++}${path.endsWith('.list') ? '.list' : '.sources'}`),
      withSource,
    );
  }
  if (found === 0) throw new Error('this machine has no Debian package sources');
  const set = {
    'Dir::Etc::sourcelist': '/dev/null',
    'Dir::Etc::sourceparts': join(work, 'parts'),
    'Dir::State::lists': join(work, 'lists'),
    'Dir::Cache': join(work, 'cache'),
    'APT::Sandbox::User': 'root',
  };
  return Object.entries(set).flatMap(([key, value]) => ['-o', `${key}=${value}`]);
}

/** GOPATH mode, as the package is built; its generated OpenAPI definitions are missing and are made first. */
async function compile(work: string): Promise<string> {
  const goroot = join(work, 'root/usr/lib/go-1.19');
  const env = {
    PATH: process.env['PATH'],
    HOME: work,
    GOROOT: goroot,
    GOPATH: join(work, 'gopath'),
    GOCACHE: join(work, 'gocache'),
    GO111MODULE: 'off',
    CGO_ENABLED: '0',
    GOFLAGS: '',
  };
  const cwd = join(work, 'gopath/src/k8s.io/kubernetes');
  const options = { cwd, env, timeout: 2_400_000, maxBuffer: 64 * 1024 * 1024 };
  const go = join(goroot, 'bin/go');
  const generator = join(work, 'openapi-gen');
  await run(
    'nice',
    [
      '-n',
      '10',
      go,
      'build',
      '-o',
      generator,
      'k8s.io/kubernetes/vendor/k8s.io/kube-openapi/cmd/openapi-gen',
    ],
    options,
  );
  const packages = await taggedPackages(options);
  const target = 'k8s.io/kubernetes/pkg/generated/openapi';
  await run(
    generator,
    ['-h', 'hack/boilerplate/boilerplate.generatego.txt', '-O', 'zz_generated.openapi', '-p', target]
      .concat(['--output-base', join(work, 'gopath/src'), '-r', '/dev/null'])
      .concat(packages.flatMap((each) => ['-i', each])),
    options,
  );
  const version = 'k8s.io/kubernetes/vendor/k8s.io/component-base/version';
  const flags = `-s -w -X ${version}.gitVersion=v1.20.2 -X ${version}.gitMajor=1 -X ${version}.gitMinor=20`;
  const output = join(work, 'kube-apiserver');
  await run(
    'nice',
    ['-n', '10', go, 'build', '-ldflags', flags, '-o', output, 'k8s.io/kubernetes/cmd/kube-apiserver'],
    options,
  );
  return output;
}

/** Import paths of the packages that ask for OpenAPI definitions. */
async function taggedPackages(options: { cwd: string; maxBuffer: number }): Promise<string[]> {
  const roots = ['cmd', 'pkg', 'plugin', 'staging/src', 'vendor/k8s.io/kube-openapi', 'vendor/k8s.io/utils'];
  const { stdout } = await run(
    'grep',
    [
      '-rlE',
      '--include=*.go',
      '^// *\\+k8s:openapi-gen=true',
      ...roots.filter((each) => existsSync(join(options.cwd, each))),
    ],
    options,
  );
  const files = stdout
    .split('\n')
    .filter((path) => path && !/testdata|_test\.go|zz_generated|\/sample-/.test(path));
  const folders = [...new Set(files.map((path) => dirname(path)))].sort();
  return folders.map((folder) =>
    folder.startsWith('staging/src/')
      ? folder.replace('staging/src/', 'k8s.io/kubernetes/vendor/')
      : `k8s.io/kubernetes/${folder}`,
  );
}
