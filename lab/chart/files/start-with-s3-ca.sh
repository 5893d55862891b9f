set -e
trusted=/usr/local/share/ca-certificates
mkdir -p "$trusted"
if [ -n "$(ls -A /s3-custom-ca)" ]; then
  cp /s3-custom-ca/* "$trusted/" && update-ca-certificates
else
  echo 'no certificate authority for S3 was given'
fi

exec ./bin/docker-entrypoint-api-ee.sh
