#!/bin/sh
# Makes ingress.tar: an image with nginx and kubectl from Debian's packages and the controller beside this script.
# Needs apt-get, dpkg-deb and tar. Import it with `keelson image import ingress.tar`.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-ingress.tar}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/root
mkdir -p "$root/tmp" "$root/run" "$root/bin" "$work/packages"
chmod 755 "$work"
(cd "$work/packages" && apt-get -q download nginx kubernetes-client busybox-static libc6 libcrypt1 libpcre2-8-0 libssl3 zlib1g)
for package in "$work"/packages/*.deb; do dpkg-deb -x "$package" "$root"; done
rm -rf "$root/usr/share"
echo 'root:x:0:0:root:/tmp:/bin/sh' > "$root/etc/passwd"
echo 'root:x:0:' > "$root/etc/group"
chroot "$root" /bin/busybox --install -s /bin
cp "$here/controller.sh" "$here/nginx.template" "$root/"
chmod 755 "$root/controller.sh"
tar -C "$root" -cf "$work/layer.tar" .
layer=$(sha256sum "$work/layer.tar" | cut -d' ' -f1)
architecture=$(dpkg --print-architecture)
cat > "$work/config.json" <<JSON
{"architecture": "$architecture", "os": "linux", "rootfs": {"type": "layers", "diff_ids": ["sha256:$layer"]},
 "config": {"Entrypoint": ["/controller.sh"], "Env": ["PATH=/usr/sbin:/usr/bin:/bin", "HOME=/tmp"]}}
JSON
echo '[{"Config": "config.json", "RepoTags": ["keelson.local/ingress:1"], "Layers": ["layer.tar"]}]' > "$work/manifest.json"
tar -C "$work" -cf "$out" manifest.json config.json layer.tar
echo "$out"
