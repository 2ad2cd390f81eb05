import { at, clustered, facts, installed, job, machine, minute, nothingInstalled, seen } from './machines.ts';
import type { RecordedMachine } from './recorded-machines.ts';

const starting = seen({ ...machine, bootedAt: at - 6 * minute });
const sick = [{ namespace: 'os-framework', name: 'app-service-0', reason: 'CrashLoopBackOff' }];

/** Work under way, or badly ended. */
export const workingMachines: readonly RecordedMachine[] = [
  {
    name: 'our install job runs',
    facts: facts({ install: seen({ ...nothingInstalled, installing: { pid: 7, alive: false } }) }),
    jobs: [job('command.install', 'running')],
    state: 'installing',
    conditions: [],
    hostIp: '192.168.1.10',
  },
  {
    name: 'somebody installs by hand',
    facts: facts({ install: seen({ ...nothingInstalled, installing: { pid: 7, alive: true } }) }),
    state: 'installing',
    conditions: [],
    hostIp: '192.168.1.10',
  },
  {
    name: 'an installer crashed and left its pid file',
    facts: facts({ install: seen({ ...nothingInstalled, installing: { pid: 7, alive: false } }) }),
    state: 'install-failed',
    conditions: ['install_failed'],
    hostIp: '192.168.1.10',
  },
  {
    name: 'our install job failed',
    facts: facts(),
    jobs: [job('command.install', 'failed')],
    state: 'install-failed',
    conditions: ['install_failed'],
    hostIp: '192.168.1.10',
  },
  {
    name: 'our install job failed after the installer had left its mark: the pods did not come up',
    facts: clustered(
      { sickPods: sick, wizardStatus: undefined },
      { install: seen({ ...installed, installed: { version: '1.12.0', at: at - 15 * minute } }) },
    ),
    jobs: [job('command.install', 'failed')],
    state: 'install-failed',
    conditions: ['pod_unhealthy', 'install_failed'],
    hostIp: '192.168.1.10',
  },
  {
    name: 'our install job failed, and somebody finished it by hand',
    facts: clustered(
      {},
      { install: seen({ ...installed, installed: { version: '1.12.0', at: at - 8 * minute } }) },
    ),
    jobs: [job('command.install', 'failed')],
    state: 'terminus-running',
    conditions: [],
    hostIp: '192.168.1.10',
  },
  {
    name: 'an install failed, and has been uninstalled since',
    facts: facts(),
    jobs: [
      job('command.install', 'failed'),
      job('command.uninstall', 'succeeded', { createdAt: at - 5 * minute, finishedAt: at - 4 * minute }),
    ],
    state: 'not-installed',
    conditions: [],
    hostIp: '192.168.1.10',
  },
  {
    name: 'installed two minutes ago, pods still come up',
    facts: clustered(
      { sickPods: sick, wizardStatus: undefined },
      { install: seen({ ...installed, installed: { version: '1.12.0', at: at - 2 * minute } }) },
    ),
    jobs: [job('command.install', 'succeeded', { finishedAt: at - 2 * minute })],
    state: 'installing',
    conditions: ['pod_unhealthy'],
    hostIp: '192.168.1.10',
  },
  {
    name: 'an uninstall runs, whatever else the files say',
    facts: clustered(
      {},
      { install: seen({ ...installed, installing: { pid: 7, alive: true }, ipChangeFailed: true }) },
    ),
    jobs: [job('command.uninstall', 'running')],
    state: 'uninstalling',
    conditions: [],
    hostIp: '192.168.1.10',
  },
  {
    name: 'an uninstall by hand runs',
    facts: clustered({}, { install: seen({ ...installed, uninstalling: { pid: 9, alive: true } }) }),
    state: 'uninstalling',
    conditions: [],
    hostIp: '192.168.1.10',
  },
  {
    name: 'the address is being changed',
    facts: clustered({}, { install: seen({ ...installed, changingIp: { pid: 9, alive: true } }) }),
    state: 'ip-changing',
    conditions: [],
    hostIp: '192.168.1.10',
  },
  {
    name: 'the change of the address left its mark of failure',
    facts: clustered({}, { install: seen({ ...installed, ipChangeFailed: true }) }),
    state: 'ip-change-failed',
    conditions: ['ip_change_failed'],
    hostIp: '192.168.1.10',
  },
  {
    name: 'the change-ip process crashed',
    facts: clustered({}, { install: seen({ ...installed, changingIp: { pid: 9, alive: false } }) }),
    state: 'ip-change-failed',
    conditions: ['ip_change_failed'],
    hostIp: '192.168.1.10',
  },
  {
    name: 'a disk is being provisioned',
    facts: clustered(),
    jobs: [job('storage.provision', 'running')],
    state: 'disk-modifing',
    conditions: [],
    hostIp: '192.168.1.10',
  },
  {
    name: 'a reboot is scheduled',
    facts: clustered({}, { shutdown: seen({ mode: 'reboot', at: at + minute }) }),
    jobs: [job('command.install', 'running')],
    state: 'shutdown',
    conditions: [],
    hostIp: '192.168.1.10',
  },
  {
    name: 'logind has taken our reboot',
    facts: clustered(),
    jobs: [job('command.reboot', 'succeeded', { finishedAt: at - 3000, boot: machine.bootId })],
    state: 'shutdown',
    conditions: [],
    hostIp: '192.168.1.10',
  },
  {
    name: 'our reboot ended when the daemon found it after the start, and the clock has not been set yet',
    facts: clustered({}, { machine: seen({ ...machine, bootId: 'b1-1', bootedAt: at - 4 * minute }) }),
    jobs: [job('command.reboot', 'succeeded', { finishedAt: at - 10_000, boot: 'b0-1' })],
    state: 'terminus-running',
    conditions: [],
    hostIp: '192.168.1.10',
  },
  {
    name: 'our reboot lies behind this start',
    facts: clustered({}, { machine: starting }),
    jobs: [job('command.reboot', 'succeeded', { finishedAt: at - 7 * minute })],
    state: 'terminus-running',
    conditions: [],
    hostIp: '192.168.1.10',
  },
];
