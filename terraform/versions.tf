terraform {
  # 1.11 is the first release in which the lock in the bucket (use_lockfile) is stable
  required_version = ">= 1.11, < 2.0"

  required_providers {
    linode = {
      source  = "linode/linode"
      version = "3.13.0"
    }
  }

  # Partial: bucket, key and endpoint come from a file, see production.s3.tfbackend.example; the keys to the bucket from
  # AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY. What is said here holds of every S3 that is not Amazon's.
  backend "s3" {
    use_lockfile                = true
    skip_credentials_validation = true
    skip_metadata_api_check     = true
    skip_region_validation      = true
    skip_requesting_account_id  = true
    skip_s3_checksum            = true
  }
}
