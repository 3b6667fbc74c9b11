# Runs in the tree. Makes the container's own scripts part of its boot and
# removes what only the build needed or what no two containers may share.
umask 022
mount -t proc proc /proc
# What was installed before insserv has links that the overrides do not know.
for override in /etc/insserv/overrides/*; do
	name=${override##*/}
	if [ -e "/etc/init.d/$name" ]; then update-rc.d -f "$name" remove; fi
done
for name in vz-boot vz-firstboot; do
	update-rc.d "$name" defaults
done
usermod -p '*' root
sed -i 's/^module(load="imklog".*/#&/' /etc/rsyslog.conf
[ -e /etc/mtab ] || ln -s ../proc/self/mounts /etc/mtab
mkdir -p -m 1777 /run/lock

rm -f /usr/sbin/policy-rc.d /etc/dpkg/dpkg.cfg.d/vz-build /etc/hostname
rm -f /etc/ssh/ssh_host_* /var/lib/dbus/machine-id /var/lib/urandom/random-seed
if [ -e /etc/machine-id ]; then : >/etc/machine-id; fi
rm -f /etc/passwd- /etc/shadow- /etc/group- /etc/gshadow- /etc/subuid- /etc/subgid-
rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/cache/debconf/*-old /var/lib/dpkg/*-old
rm -rf /var/cache/ldconfig/aux-cache /var/log/apt/* /var/log/*.log /tmp/* /debootstrap
find /var/log -type f -exec truncate -s 0 {} +
find /run -mindepth 1 ! -type d -delete
find /usr/share/doc ! -type d ! -name copyright -delete
find /usr/share/man /usr/share/info /usr/share/locale /usr/share/lintian ! -type d ! -name locale.alias -delete 2>/dev/null || :
find /dev -mindepth 1 ! -type d -delete
