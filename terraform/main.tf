# What everything here shares. The pieces: cluster.tf, network.tf, database.tf, dns.tf; README.md is the way through them.

# The token comes from LINODE_TOKEN and from nowhere else, so that no plan, no state and no tfvars file holds it.
provider "linode" {}

locals {
  label = "${var.name}-${var.environment}"
  tags  = [var.name, var.environment]
}
