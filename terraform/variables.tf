# No variable is a secret: the token is LINODE_TOKEN, and what the service signs and calls with belongs into Kubernetes.

variable "name" {
  description = "Begins the label of everything that is made. Lower case, digits and dashes, at most 15."
  type        = string
  default     = "customer-orders"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,14}$", var.name))
    error_message = "name is 2 to 15 of a-z, 0-9 and -, and begins with a letter: a firewall's label holds no more."
  }
}

variable "environment" {
  description = "production or staging. Production refuses what cannot survive the loss of one machine."
  type        = string

  validation {
    condition     = contains(["production", "staging"], var.environment)
    error_message = "environment is production or staging."
  }
}

variable "region" {
  description = "Where everything is, such as eu-central or gb-lon; it needs Kubernetes and Managed Databases."
  type        = string

  validation {
    condition     = can(regex("^[a-z]{2}-[a-z]+(-[0-9]+)?$", var.region))
    error_message = "region is the id of one of Linode's regions, such as eu-central or gb-lon."
  }
}

variable "kubernetes_version" {
  description = "Major and minor, such as 1.33; one that LKE offers now. No default: Linode retires each after about a year."
  type        = string

  validation {
    condition     = can(regex("^1\\.[0-9]{2}$", var.kubernetes_version))
    error_message = "kubernetes_version is major.minor, such as 1.33; LKE chooses the patch."
  }
}

variable "high_availability" {
  description = "Several copies of the control plane. Once on, Linode never turns it off again."
  type        = bool
  default     = true

  validation {
    condition     = var.high_availability || var.environment != "production"
    error_message = "high_availability is true in production."
  }
}

variable "control_plane_allowed_ipv4" {
  description = "Networks that may reach the Kubernetes API: the office's, the VPN's, the deploying runner's."
  type        = set(string)

  validation {
    condition     = length(var.control_plane_allowed_ipv4) > 0 && alltrue([for cidr in var.control_plane_allowed_ipv4 : can(cidrnetmask(cidr))])
    error_message = "control_plane_allowed_ipv4 is at least one network as address/length, such as 192.0.2.10/32."
  }

  validation {
    condition     = alltrue([for cidr in var.control_plane_allowed_ipv4 : !endswith(cidr, "/0")])
    error_message = "control_plane_allowed_ipv4 is not the whole world: name the networks that deploy."
  }
}

variable "control_plane_allowed_ipv6" {
  description = "The same for IPv6."
  type        = set(string)
  default     = []

  validation {
    condition     = alltrue([for cidr in var.control_plane_allowed_ipv6 : can(cidrhost(cidr, 0)) && !endswith(cidr, "/0")])
    error_message = "control_plane_allowed_ipv6 holds networks as address/length, and not the whole world."
  }
}

variable "node_pool" {
  description = "The nodes: Linode's type, and between how many the autoscaler chooses. Of three, one may fall while another is replaced."
  type = object({
    type = string
    min  = number
    max  = number
  })
  default = {
    type = "g6-standard-2"
    min  = 3
    max  = 6
  }

  validation {
    condition     = var.node_pool.min >= 2 && var.node_pool.max >= var.node_pool.min && var.node_pool.max <= 100
    error_message = "node_pool: min is 2 or more, so that the service outlives a node; max is min to 100."
  }
}

variable "extra_node_pools" {
  description = "Further pools by name: for another type of node, or while the main pool's type is changed."
  type = map(object({
    type = string
    min  = number
    max  = number
  }))
  default = {}

  validation {
    condition     = alltrue([for pool in values(var.extra_node_pools) : pool.min >= 2 && pool.max >= pool.min && pool.max <= 100])
    error_message = "extra_node_pools: of each, min is 2 or more, and max is min to 100."
  }
}

variable "database_version" {
  description = "PostgreSQL's major version. A higher one upgrades in place, with an interruption; there is no way back but a restore."
  type        = string
  default     = "17"

  validation {
    condition     = can(regex("^1[4-9]$", var.database_version))
    error_message = "database_version is a major version of PostgreSQL that the service is tested with: 14 or later."
  }
}

variable "database_type" {
  description = "Linode's type of each machine of the database."
  type        = string
  default     = "g6-dedicated-2"
}

variable "database_cluster_size" {
  description = "Machines of the database: 1 fails with its machine, 2 has a standby, 3 has one even while another is replaced."
  type        = number
  default     = 3

  validation {
    condition     = contains([1, 2, 3], var.database_cluster_size)
    error_message = "database_cluster_size is 1, 2 or 3: Linode makes no other."
  }

  validation {
    condition     = var.database_cluster_size >= 2 || var.environment != "production"
    error_message = "database_cluster_size is 2 or 3 in production."
  }
}

variable "database_admin_cidrs" {
  description = "Who besides the nodes may reach the database: single addresses of administrators, none by default."
  type        = set(string)
  default     = []

  validation {
    condition     = alltrue([for cidr in var.database_admin_cidrs : can(cidrnetmask(cidr)) && try(tonumber(split("/", cidr)[1]) >= 24, false)])
    error_message = "database_admin_cidrs holds IPv4 networks as address/length of 256 addresses at most, such as 192.0.2.10/32."
  }
}

variable "database_updates" {
  description = "When Linode may patch the database, a window of four hours in UTC: day_of_week 1 is Monday, 7 is Sunday."
  type = object({
    day_of_week = number
    hour_of_day = number
  })
  default = {
    day_of_week = 7
    hour_of_day = 0
  }

  validation {
    condition     = contains(range(1, 8), var.database_updates.day_of_week) && contains(range(24), var.database_updates.hour_of_day)
    error_message = "database_updates: day_of_week is 1 (Monday) to 7, hour_of_day is 0 to 23."
  }
}

variable "database_restore" {
  description = "Makes the database out of the backups of another: its id, and the moment in RFC 3339; null is the newest. See README.md, Restore."
  type = object({
    source_id = number
    time      = optional(string)
  })
  default = null

  validation {
    condition     = try(var.database_restore.time, null) == null || can(timeadd(var.database_restore.time, "0s"))
    error_message = "database_restore: time is like 2026-01-31T09:30:00Z."
  }
}

variable "domain" {
  description = "The domain that Linode's name servers answer for, such as example.com."
  type        = string

  validation {
    condition     = can(regex("^([a-z0-9]([a-z0-9-]*[a-z0-9])?\\.)+[a-z]{2,}$", var.domain))
    error_message = "domain is a name such as example.com, in lower case, without https:// and without a dot at its end."
  }
}

variable "create_domain" {
  description = "Whether the domain is made here; false if the account has it."
  type        = bool
  default     = false
}

variable "soa_email" {
  description = "Whom the domain's SOA record names; needed to make a domain."
  type        = string
  default     = null

  validation {
    condition     = !var.create_domain || can(regex("^[^@ ]+@[^@ ]+$", var.soa_email))
    error_message = "soa_email is an e-mail address where create_domain is true."
  }
}

variable "hostname" {
  description = "The service's name within the domain; empty for the domain itself."
  type        = string
  default     = "orders"

  validation {
    condition     = can(regex("^([a-z0-9]([a-z0-9-]*[a-z0-9])?)?$", var.hostname))
    error_message = "hostname is one label, such as orders."
  }
}

variable "load_balancer_ipv4" {
  description = "The NodeBalancer's address, once Kubernetes has made it; no record before."
  type        = string
  default     = null

  validation {
    condition     = var.load_balancer_ipv4 == null || can(cidrnetmask("${var.load_balancer_ipv4}/32"))
    error_message = "load_balancer_ipv4 is an IPv4 address."
  }
}

variable "load_balancer_ipv6" {
  description = "The same for IPv6."
  type        = string
  default     = null

  validation {
    condition     = var.load_balancer_ipv6 == null || (can(cidrhost("${var.load_balancer_ipv6}/128", 0)) && strcontains(coalesce(var.load_balancer_ipv6, "."), ":"))
    error_message = "load_balancer_ipv6 is an IPv6 address."
  }
}
