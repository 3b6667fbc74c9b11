// Package template keeps OS templates: the root file systems that new
// containers start from.
//
// A template NAME is two files below the template directory, a tarball and
// what is known about it:
//
//	cache/NAME.tar.zst   PAX tar, zstd
//	cache/NAME.json      Info: origin, size, entries, SHA-256 of the tarball
//
// The metadata is written last and removed first, so a tarball without it is
// no template and a half-made one is never visible. Builds work in
// build-XXXX beside cache and keep the .deb files they fetched in debs.
//
// # What is built
//
// "minimal" is the machine's static busybox with an init, made without a
// network in well under two seconds. "debian-12" and "debian-13" are made by
// debootstrap from the archive that the machine's own apt sources name, with
// sysvinit as PID 1, cron, rsyslog and openssh-server. Manual pages,
// documentation other than copyright files, and translations are left out.
//
// # What a container's boot must not do
//
// A distribution's start-up scripts expect hardware. In a user namespace they
// fail noisily; in a privileged container they act on the host: checkroot
// remounts the host's root, procps sets the host's sysctls, umountfs turns the
// host's swap off, hwclock sets its clock. Each extra mount also costs
// milliseconds in every checkpoint. Debian's templates therefore carry a file
// for each such script in /etc/insserv/overrides (insserv(8)) that gives it no
// run level; package upgrades do not bring the scripts back. Besides:
//
//   - /etc/inittab has no gettys and halts or reboots directly; SIGPWR shuts
//     the container down.
//   - /etc/fstab is empty. Nothing is mounted at boot: /proc, /sys, /dev,
//     /dev/pts and /dev/shm are the engine's, /run is a plain directory that
//     vz-boot empties.
//   - SSH host keys are missing and are made by vz-firstboot, so that two
//     containers never share them. The root password is locked.
//   - rsyslog does not read the kernel's log.
//   - /etc/network/interfaces has lo alone; addresses come from outside.
//   - /etc/hostname is missing: until something writes it, the name that the
//     engine gave the UTS namespace stands.
package template
