# Arguments: tree, directory for .deb files, packages. Runs in its own mount
# namespace: the mounts go with it.
umask 022
root=$1 debs=$2
shift 2
mount --bind "$debs" "$root/var/cache/apt/archives"
mount -t proc proc "$root/proc"
apt() {
	chroot "$root" apt-get -q -y -o Acquire::Languages=none -o APT::Sandbox::User=root \
		-o APT::Install-Recommends=0 -o APT::Keep-Downloaded-Packages=1 -o Dpkg::Use-Pty=0 "$@"
}
apt update
apt dist-upgrade
apt install "$@"
