# Arguments: codename, tree, mirror, directory for .deb files, keyring,
# extra packages. The tree already has policy-rc.d, so that no daemon starts.
umask 022
exec debootstrap --variant=minbase --force-check-gpg --cache-dir="$4" ${5:+--keyring="$5"} \
	${6:+--include="$6"} "$1" "$2" "$3"
