//! The kernel's numbers, from `linux/netfilter/nf_tables.h` and `linux/netfilter/nfnetlink.h`, under their own names.

#![allow(missing_docs)]

use nix::libc;

/// Whose packets a table sees (`NFPROTO_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Family {
    Inet = 1,
    Ip = 2,
    Arp = 3,
    Netdev = 5,
    Bridge = 7,
    Ip6 = 10,
}

impl Family {
    pub(crate) fn of(number: u8) -> Option<Self> {
        [Self::Inet, Self::Ip, Self::Arp, Self::Netdev, Self::Bridge, Self::Ip6]
            .into_iter()
            .find(|f| *f as u8 == number)
    }
}

pub const SUBSYSTEM_NFTABLES: u16 = 10;
pub const SUBSYSTEM_CONNTRACK: u16 = 1;
pub const GROUP_NFTABLES: libc::c_int = 7;

pub const BATCH_BEGIN: u16 = 0x10;
pub const BATCH_END: u16 = 0x11;

pub const NLMSGERR_ATTR_MSG: u16 = 1;
pub const NLMSGERR_ATTR_OFFS: u16 = 2;
pub const NLM_F_CAPPED: u16 = 0x100;
pub const NLM_F_ACK_TLVS: u16 = 0x200;
pub const NLM_F_DUMP_INTR: u16 = 0x10;

pub const MSG_NEWTABLE: u16 = 0;
pub const MSG_GETTABLE: u16 = 1;
pub const MSG_DELTABLE: u16 = 2;
pub const MSG_NEWCHAIN: u16 = 3;
pub const MSG_GETCHAIN: u16 = 4;
pub const MSG_DELCHAIN: u16 = 5;
pub const MSG_NEWRULE: u16 = 6;
pub const MSG_GETRULE: u16 = 7;
pub const MSG_DELRULE: u16 = 8;
pub const MSG_NEWSET: u16 = 9;
pub const MSG_GETSET: u16 = 10;
pub const MSG_DELSET: u16 = 11;
pub const MSG_NEWSETELEM: u16 = 12;
pub const MSG_GETSETELEM: u16 = 13;
pub const MSG_DELSETELEM: u16 = 14;
pub const MSG_NEWGEN: u16 = 15;
pub const MSG_GETGEN: u16 = 16;

pub const LIST_ELEM: u16 = 1;
pub const GEN_ID: u16 = 1;

pub const TABLE_NAME: u16 = 1;
pub const TABLE_HANDLE: u16 = 4;
pub const TABLE_USERDATA: u16 = 6;

pub const HOOK_HOOKNUM: u16 = 1;
pub const HOOK_PRIORITY: u16 = 2;
pub const CHAIN_TABLE: u16 = 1;
pub const CHAIN_NAME: u16 = 3;
pub const CHAIN_HOOK: u16 = 4;
pub const CHAIN_POLICY: u16 = 5;
pub const CHAIN_TYPE: u16 = 7;

pub const RULE_TABLE: u16 = 1;
pub const RULE_CHAIN: u16 = 2;
pub const RULE_HANDLE: u16 = 3;
pub const RULE_EXPRESSIONS: u16 = 4;
pub const RULE_USERDATA: u16 = 7;

pub const SET_F_INTERVAL: u32 = 0x4;
pub const SET_F_MAP: u32 = 0x8;
pub const SET_F_TIMEOUT: u32 = 0x10;
pub const SET_F_EVAL: u32 = 0x20;
pub const SET_F_CONCAT: u32 = 0x80;

pub const SET_TABLE: u16 = 1;
pub const SET_NAME: u16 = 2;
pub const SET_FLAGS: u16 = 3;
pub const SET_KEY_TYPE: u16 = 4;
pub const SET_KEY_LEN: u16 = 5;
pub const SET_DATA_TYPE: u16 = 6;
pub const SET_DATA_LEN: u16 = 7;
pub const SET_DESC: u16 = 9;
pub const SET_ID: u16 = 10;
pub const SET_TIMEOUT: u16 = 11;
pub const SET_GC_INTERVAL: u16 = 12;
pub const SET_USERDATA: u16 = 13;
pub const SET_HANDLE: u16 = 16;
pub const SET_DESC_SIZE: u16 = 1;
pub const SET_DESC_CONCAT: u16 = 2;
pub const SET_FIELD_LEN: u16 = 1;

pub const ELEM_F_INTERVAL_END: u32 = 1;
pub const ELEM_KEY: u16 = 1;
pub const ELEM_DATA: u16 = 2;
pub const ELEM_FLAGS: u16 = 3;
pub const ELEM_TIMEOUT: u16 = 4;
pub const ELEM_KEY_END: u16 = 10;
pub const ELEM_LIST_TABLE: u16 = 1;
pub const ELEM_LIST_SET: u16 = 2;
pub const ELEM_LIST_ELEMENTS: u16 = 3;

pub const DATA_VALUE: u16 = 1;
pub const DATA_VERDICT: u16 = 2;
pub const DATA_TYPE_VERDICT: u32 = 0xffff_ff00;
pub const VERDICT_CODE: u16 = 1;
pub const VERDICT_CHAIN: u16 = 2;

/// `enum nft_registers`: the verdict's, and the first of sixteen registers of four bytes.
pub const REG_VERDICT: u32 = 0;
pub const REG32_00: u32 = 8;

pub const EXPR_NAME: u16 = 1;
pub const EXPR_DATA: u16 = 2;
